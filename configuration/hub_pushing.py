"""`push_to_hub` of every model and processor of the zoo: their code goes along."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from transformers import ProcessorMixin
from transformers.utils import PushToHubMixin

PUBLISHERS = "speechzoo.publishers"
_OF_COMMITS = ("commit_message", "commit_description", "private", "revision", "create_pr", "tags")


class PushedWithCode(PushToHubMixin):
    """Base of models and processors; stands before that of transformers.

    What publishes lies above this layer and does not belong to the code that a checkpoint carries. So it is not
    imported here: the installed package names it as its entry point.
    """

    _auto_class: str | None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = "50GB",
        tags: list[str] | None = None,
    ) -> Any:
        """Uploads this, and the code it needs, to the Hub as one commit; the arguments are those of transformers.

        Backbones that exist on this disk only go along. A new repository is private unless `private=False`.

        A model brings a card. One that is there keeps only license, languages and tags where the weights are others,
        for no report comes along: `speechzoo.hub_cards.publishing.publish` takes one. A card that a person wrote or
        edited is kept. A `Trainer` with `push_to_hub=True` does not call this; it sends the code, too, with
        `callbacks=[speechzoo.hub_cards.trainer_pushing.CodeGoesAlong()]`.

        Returns the `CommitInfo` of huggingface_hub.

        Raises:
            ValueError: the repository is public and `private=True`; a model or processor names another that is not on
                the Hub.
            PublishingError: the Hub refuses or cannot be reached; it is then as it was.
        """
        details: dict[str, Any] = {
            "commit_message": commit_message,
            "commit_description": commit_description,
            "private": private,
            "token": token,
            "revision": revision,
            "create_pr": create_pr,
            "max_shard_size": max_shard_size,
            "tags": tags,
        }
        if self._auto_class is not None:  # a checkpoint's own code, which transformers takes along
            given = {name: value for name, value in details.items() if value is not None}
            return super().push_to_hub(repo_id, **given)
        publishers = entry_points(group=PUBLISHERS)
        if not publishers:
            raise RuntimeError("this installation of speechzoo cannot publish; install it again: pip install .")
        push = next(iter(publishers)).load()
        return push(self, repo_id, **details)

    def save_pretrained(self, save_directory: Any, *args: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As transformers saves it; with `push_to_hub` the repository gets what that method sends.

        Args:
            push_to_hub: uploads it, too, under `repo_id` or the name of the folder; by the main process alone.
        """
        save: Any = super().save_pretrained  # type: ignore[misc]
        if not push_to_hub or self._auto_class is not None:
            return save(save_directory, *args, push_to_hub=push_to_hub, **kwargs)
        details = {name: kwargs.pop(name) for name in ("repo_id", *_OF_COMMITS) if name in kwargs}
        saved = save(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            shared = {name: kwargs[name] for name in ("token", "max_shard_size") if name in kwargs}
            self.push_to_hub(details.pop("repo_id", Path(save_directory).name), **details, **shared)
        return saved


class PushedProcessor(PushedWithCode, ProcessorMixin):
    """The base of processors, in place of that of transformers."""


__all__ = ["PushedProcessor", "PushedWithCode"]
