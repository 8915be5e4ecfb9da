"""Uploads to a Hub that fails on purpose: what passes is survived, what does not leaves the Hub as it was."""

import logging
import traceback
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from loopback_hub import TOKEN

from speechzoo.hub_cards import hub_upload
from speechzoo.hub_cards.hub_upload import Destination, Patience, PublishingError, upload

BRIEF = Patience(attempts=3, first_wait=0.01)
ALWAYS = 10**6
LARGE = bytes(range(256)) * 20
COMMIT = "POST /api/models/org/new/commit/"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text("---\ntags: [speech]\n---\n# A model\n")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(LARGE)
    return tmp_path


def send(folder, repository="org/new", **settings):
    return upload(folder, Destination(repository, patience=BRIEF, **settings), "All of it")


def titles(hub, name="org/new"):
    return [commit.title for commit in hub.repository(name).commits.values()]


def test_one_private_commit_with_everything(hub, folder):
    commit, private = send(folder)
    assert private and hub.repository("org/new").private
    assert titles(hub) == ["initial commit", "All of it"] and hub.repository("org/new").at("main").id == commit.oid
    files = hub.files("org/new")
    assert {name: files[name] for name in ("config.json", "model.safetensors")} == {
        "config.json": b"{}",
        "model.safetensors": LARGE,
    }


@pytest.mark.parametrize(
    ("request_line", "kind", "settings"),
    [
        ("GET /api/models/org/new$", "unheard", {}),
        ("POST /api/repos/create", "error", {"times": 2}),
        ("POST /api/repos/create", "unanswered", {}),
        ("POST /api/validate-yaml", "error", {"status": 503}),
        ("PUT /lfs-objects/", "damaged request", {}),
        ("PUT /lfs-objects/", "error", {"status": 403}),
        (COMMIT, "error", {"times": 2, "status": 502}),
        (COMMIT, "unheard", {}),
        (COMMIT, "unanswered", {}),
        (COMMIT, "cut", {}),
        (COMMIT, "slow", {"seconds": 0.3}),
    ],
)
def test_what_passes_is_survived_in_one_commit(hub, folder, caplog, request_line, kind, settings):
    hub.fail(request_line, kind, **settings)
    commit, _ = send(folder)
    assert hub.faults[0].times == 0, "nothing failed"
    assert titles(hub) == ["initial commit", "All of it"]
    assert hub.repository("org/new").at("main").id == commit.oid
    assert hub.files("org/new")["model.safetensors"] == LARGE
    stored = [line for line in hub.requests if line.startswith("PUT") and line.endswith("200")]
    assert len(stored) == 1, "what is in the store is not sent again"
    if kind != "slow":
        assert "attempt 2 of 3 in 0.01 s" in caplog.text


def test_what_the_client_repeats_itself_is_survived_too(hub, folder):
    hub.fail("POST /api/models/org/new/preupload/", "error", status=503)
    send(folder)
    assert titles(hub) == ["initial commit", "All of it"]


def test_a_new_repository_is_gone_when_its_commit_fails_for_good(hub, folder):
    hub.fail(COMMIT, "error", times=ALWAYS)
    with pytest.raises(PublishingError, match=r"nothing was published to 'org/new': .*500 Internal Server Error"):
        send(folder)
    assert not hub.repositories
    assert sum("/commit/main" in line for line in hub.requests) == BRIEF.attempts


@pytest.mark.parametrize("step", ["create_repo", "upload_folder"])
def test_a_new_repository_is_gone_after_an_interruption(hub, folder, monkeypatch, step):
    done = getattr(HfApi, step)

    def interrupted(*given, **options):
        if step == "create_repo":
            done(*given, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        send(folder)
    assert any("repos/create" in line for line in hub.requests) and not hub.repositories


@pytest.mark.parametrize("kind", ["error", "unheard"])
def test_a_repository_that_was_there_stays_as_it_was_and_the_next_run_goes_on(hub, folder, kind):
    send(folder)
    before, commits = hub.files("org/new"), titles(hub)
    (folder / "model.safetensors").write_bytes(LARGE[::-1])
    hub.fail(COMMIT, kind, times=BRIEF.attempts)
    with pytest.raises(PublishingError):
        send(folder)
    assert hub.files("org/new") == before and titles(hub) == commits
    sent = sum(line.startswith("PUT") for line in hub.requests)
    send(folder)
    assert sum(line.startswith("PUT") for line in hub.requests) == sent, "the store had it"
    assert hub.files("org/new")["model.safetensors"] == LARGE[::-1]


def test_nothing_that_somebody_committed_meanwhile_is_removed(hub, folder):
    """All answers to the commit are lost, so that it looks as if it had failed."""
    hub.fail(COMMIT, "unanswered", times=ALWAYS)
    hub.fail("GET /api/models/org/new/revision/main", "unheard", times=ALWAYS)
    hub.fail("POST /api/models/org/new/preupload/", "error", status=400, spared=1, times=ALWAYS)
    with pytest.raises(PublishingError):
        send(folder)
    assert titles(hub) == ["initial commit", "All of it"]


def test_what_cannot_be_taken_back_is_told(hub, folder):
    hub.fail(COMMIT, "error", status=400)
    hub.fail("DELETE /api/repos/delete", "error", times=ALWAYS)
    with pytest.raises(PublishingError, match="an empty repository or branch, could not be removed again"):
        send(folder)


def test_a_refusal_is_not_repeated(hub, folder):
    hub.fail("POST /api/repos/create", "error", status=403, times=ALWAYS)
    with pytest.raises(PublishingError, match="403 Forbidden") as caught:
        send(folder)
    assert "could not be removed" not in str(caught.value)
    assert sum("repos/create" in line for line in hub.requests) == 1


def test_the_hub_is_given_the_time_it_asks_for(hub, folder, monkeypatch):
    waits = []
    monkeypatch.setattr(hub_upload, "time", SimpleNamespace(sleep=waits.append))
    hub.fail("POST /api/repos/create", "error", status=429, headers={"Retry-After": "7"})
    send(folder)
    assert waits == [7.0]


def test_bad_metadata_is_told_at_once(hub, folder):
    (folder / "README.md").write_text("---\ntags: [unclosed\n---\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        send(folder)
    assert not hub.repositories


def test_the_token_is_in_no_log(hub, folder, caplog):
    caplog.set_level(logging.DEBUG)
    hub.fail("POST /api/repos/create", "error")
    hub.fail(COMMIT, "unheard")
    send(folder, token=TOKEN + "\n")
    assert "Authorization" not in caplog.text and TOKEN not in caplog.text
    assert TOKEN not in repr(Destination("org/new", token=TOKEN))


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_a_token_that_the_hub_repeats_is_in_no_error(hub, folder, caplog, token):
    told = {"X-Error-Message": "no right to write with {token}"}
    hub.fail("POST /api/repos/create", "error", headers=told)
    hub.fail("POST /api/repos/create", "error", status=403, headers=told, times=ALWAYS)
    with pytest.raises(PublishingError, match=r"Forbidden: no right to write with <token>") as caught:
        send(folder, token=token)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert (token or TOKEN) not in shown and "no right to write with <token>" in caplog.text


def test_tags_name_the_commit_and_are_never_moved(hub, folder):
    commit, _ = send(folder, tag="v1")
    assert hub.repository("org/new").references["v1"] == commit.oid
    (folder / "config.json").write_text('{"other": 1}')
    with pytest.raises(ValueError, match="'org/new' has a tag 'v1' already"):
        send(folder, tag="v1")
    assert hub.files("org/new")["config.json"] == b"{}"
    hub.fail("POST /api/models/org/new/tag/", "unanswered")
    second, _ = send(folder, tag="v2")
    assert (hub.repository("org/new").references["v1"], hub.repository("org/new").references["v2"]) == (
        commit.oid,
        second.oid,
    )


def test_a_tag_that_fails_is_told_apart(hub, folder):
    hub.fail("POST /api/models/org/new/tag/", "error", status=403)
    with pytest.raises(PublishingError, match="is in 'org/new', but not its tag 'v1'"):
        send(folder, tag="v1")
    assert titles(hub) == ["initial commit", "All of it"]


def test_a_branch_is_made_and_taken_back(hub, folder):
    send(folder)
    (folder / "config.json").write_text('{"draft": 1}')
    hub.fail("POST /api/models/org/new/commit/draft", "error", status=400)
    with pytest.raises(PublishingError):
        send(folder, revision="draft")
    assert list(hub.repository("org/new").references) == ["main"]
    send(folder, revision="draft")
    assert hub.files("org/new", revision="draft")["config.json"] == b'{"draft": 1}'
    assert hub.files("org/new")["config.json"] == b"{}"


def test_what_is_public_is_never_taken_for_private(hub, folder):
    assert send(folder, private=False)[1] is False
    with pytest.raises(ValueError, match=r"'org/new' is there and public; .* --public"):
        send(folder)
    assert send(folder, private=None)[1] is False
    assert send(folder, "org/other", private=None)[1] is True


def test_what_is_stale_goes(hub, folder):
    send(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    to = Destination("org/new", patience=BRIEF)
    upload(folder, to, "In shards", only=["model-*"], stale=["*.safetensors"])
    assert HfApi().list_repo_files("org/new") == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model-00001-of-00001.safetensors",
    ]


@pytest.mark.parametrize("kind", ["unheard", "cut"])
def test_a_download_survives_what_passes(hub, folder, tmp_path_factory, kind):
    send(folder)
    hub.fail("GET /org/new/resolve/.*/model.safetensors", kind)
    cache = tmp_path_factory.mktemp("cache")
    path = HfApi().hf_hub_download("org/new", "model.safetensors", cache_dir=cache)
    assert hub.faults[0].times == 0
    with open(path, "rb") as file:
        assert file.read() == LARGE


def test_nobody_without_the_token_sees_what_is_private(hub, folder):
    send(folder)
    assert HfApi().repo_exists("org/new")
    assert not HfApi(token=False).repo_exists("org/new")
