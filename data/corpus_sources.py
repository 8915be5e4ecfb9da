"""Where each corpus comes from, under which license, and what its folder must look like.

Facts only: `data.downloads` fetches, `hub_cards.dataset_card` prints, and `how_to_get` is what a user reads whose
data is not there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "HUB_LICENSES",
    "SOURCES",
    "CorpusSource",
    "License",
    "check_languages",
    "check_license",
    "how_to_get",
    "source_of",
]


@dataclass(frozen=True)
class License:
    """A license.

    Args:
        id: as the Hub spells it; "other" where the Hub has no name for it, "unknown" where nobody stated one.
        name: as people write it.
        redistribution: on what terms copies may be passed on; empty where they may not.
        link: its text.
    """

    id: str
    name: str
    redistribution: str = ""
    link: str = ""


@dataclass(frozen=True)
class CorpusSource:
    """Facts about one corpus.

    Args:
        name: what `load_corpus` calls it.
        title, description, homepage, citation: for people; the citation is BibTeX.
        license: of everything together, audio included.
        text_license: of the annotations without the audio, where that is another one.
        where: how to get it, as sentences.
        accept_first: a license must be accepted, or a form filled in, before the download.
        download: `download_corpus` can fetch it.
        layout: what the data folder must look like.
        languages: codes as the Hub spells them; none where they differ from copy to copy.
    """

    name: str
    title: str
    description: str
    homepage: str
    citation: str
    license: License
    where: str
    layout: str
    text_license: License | None = None
    accept_first: bool = False
    download: bool = False
    languages: tuple[str, ...] = ("en",)

    def license_for(self, audio: bool) -> License:
        """The license of a copy with or without audio."""
        return self.license if audio or self.text_license is None else self.text_license


CC0 = License("cc0-1.0", "CC0 1.0", "allowed without conditions", "https://creativecommons.org/publicdomain/zero/1.0/")
CC_BY = License("cc-by-4.0", "CC BY 4.0", "allowed with attribution", "https://creativecommons.org/licenses/by/4.0/")
CC_BY_NC = License(
    "cc-by-nc-4.0",
    "CC BY-NC 4.0",
    "allowed with attribution, for non-commercial purposes only",
    "https://creativecommons.org/licenses/by-nc/4.0/",
)
FLUENT = License("other", "Fluent Speech Commands Public License")
UNKNOWN = License("unknown", "not stated")

HUB_LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
    cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c
    ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa
    unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1
    llama3.2 llama3.3 llama4 grok2-community gemma unknown other
    """.split()
)
"""Ids of licenses that the Hub has a name for, from its documentation."""


def check_license(license: str) -> None:
    """Raises `ValueError` for a license that the Hub has no name for, which cards may not have."""
    if license not in HUB_LICENSES:
        raise ValueError(f"'{license}' is no license the Hub knows; give one such as apache-2.0, or other")


def check_languages(codes: Sequence[str]) -> None:
    """Raises `ValueError` for what is no code of a language."""
    if wrong := [code for code in codes if not re.fullmatch("[a-z]{2,3}(-[A-Za-z0-9]+)*", code)]:
        raise ValueError(f"'{wrong[0]}' is no code of a language; give codes such as en, de or yue")


_SLUE_CITATION = """\
@inproceedings{shon2022slue,
  title = {{SLUE}: New Benchmark Tasks for Spoken Language Understanding Evaluation on Natural Speech},
  author = {Shon, Suwon and Pasad, Ankita and Wu, Felix and Brusco, Pablo and Artzi, Yoav and Livescu, Karen and Han, Kyu J.},
  booktitle = {ICASSP 2022 - IEEE International Conference on Acoustics, Speech and Signal Processing},
  year = {2022},
  note = {arXiv:2111.10367}
}"""  # noqa: E501

_SLUE_WHERE = (
    "Accept the terms at https://huggingface.co/datasets/asapp/slue with a Hugging Face account, or follow the "
    "download page of https://github.com/asappresearch/slue-toolkit to the archive {archive}, and unpack it."
)

_SLURP = CorpusSource(
    name="slurp",
    title="SLURP: A Spoken Language Understanding Resource Package",
    description="Commands to a home assistant, read by people in homes and offices with close and distant "
    "microphones, and a synthetic part; labeled with scenario, action, intent and entities.",
    homepage="https://github.com/pswietojanski/slurp",
    citation="""\
@inproceedings{bastianelli2020slurp,
  title = {{SLURP}: A Spoken Language Understanding Resource Package},
  author = {Bastianelli, Emanuele and Vanzo, Andrea and Swietojanski, Pawel and Rieser, Verena},
  booktitle = {Proceedings of the 2020 Conference on Empirical Methods in Natural Language Processing (EMNLP)},
  year = {2020},
  note = {arXiv:2011.13205}
}""",
    license=CC_BY_NC,
    text_license=CC_BY,
    where="The text comes from https://github.com/pswietojanski/slurp (folder dataset/slurp), the audio from "
    "https://zenodo.org/records/4274930 (slurp_real.tar.gz and slurp_synth.tar.gz, about 6 GB).",
    layout="""\
dataset/slurp/train.jsonl  train_synthetic.jsonl  devel.jsonl  test.jsonl  metadata.json
audio/slurp_real/*.flac
audio/slurp_synth/*.flac""",
    download=True,
)

_NLU_EVALUATION = CorpusSource(
    name="nlu_evaluation",
    title="NLU evaluation data: annotated commands to a home assistant",
    description="The annotated sentences from which SLURP was made, in SLURP's record shape; text alone.",
    homepage="https://github.com/xliuhw/NLU-Evaluation-Data",
    citation="""\
@inproceedings{liu2019benchmarking,
  title = {Benchmarking Natural Language Understanding Services for Building Conversational Agents},
  author = {Liu, Xingkun and Eshghi, Arash and Swietojanski, Pawel and Rieser, Verena},
  booktitle = {Proceedings of the Tenth International Workshop on Spoken Dialogue Systems Technology (IWSDS)},
  year = {2019},
  note = {arXiv:1903.05566}
}""",
    license=CC_BY,
    where="The project https://github.com/xliuhw/NLU-Evaluation-Data has the sentences as tables of its own shape; "
    "write them as JSON lines with SLURP's keys (sentence, scenario, action, tokens, entities, recordings).",
    layout="train.jsonl or train.jsonl.gz",
)

_FLUENT_SPEECH_COMMANDS = CorpusSource(
    name="fluent_speech_commands",
    title="Fluent Speech Commands",
    description="Commands to a smart home, read by 97 speakers; labeled with action, object and location.",
    homepage="https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research/",
    citation="""\
@inproceedings{lugosch2019speech,
  title = {Speech Model Pre-training for End-to-End Spoken Language Understanding},
  author = {Lugosch, Loren and Ravanelli, Mirco and Ignoto, Patrick and Tomar, Vikrant Singh and Bengio, Yoshua},
  booktitle = {Interspeech 2019},
  year = {2019},
  note = {arXiv:1904.03670}
}""",
    license=FLUENT,
    where="Ask for it at https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-"
    "research/, accept its license (a PDF in the archive), and unpack the archive.",
    layout="""\
data/train_data.csv  valid_data.csv  test_data.csv  speaker_demographics.csv
wavs/speakers/<speakerId>/<uuid>.wav""",
    accept_first=True,
)

_SLUE_VOXCELEB = CorpusSource(
    name="slue_voxceleb",
    title="SLUE-VoxCeleb: sentiment of spoken sentences",
    description="Excerpts of interviews with celebrities, cut to the annotated seconds; labeled with transcript and "
    "sentiment.",
    homepage="https://asappresearch.github.io/slue-toolkit/",
    citation=_SLUE_CITATION,
    license=CC_BY,
    where=_SLUE_WHERE.format(archive="slue-voxceleb_v0.2_blind.zip"),
    layout="""\
slue-voxceleb_fine-tune.tsv  slue-voxceleb_dev.tsv  slue-voxceleb_test.tsv (or _test_blind.tsv)
fine-tune_raw/<id>.flac
dev_raw/<id>.flac
test_raw/<id>.flac""",
    accept_first=True,
)

_SLUE_VOXPOPULI = CorpusSource(
    name="slue_voxpopuli",
    title="SLUE-VoxPopuli: named entities in speeches",
    description="Speeches of the European Parliament in English; labeled with transcript and named entities.",
    homepage="https://asappresearch.github.io/slue-toolkit/",
    citation=_SLUE_CITATION,
    license=CC0,
    where=_SLUE_WHERE.format(archive="slue-voxpopuli_v0.2_blind.zip"),
    layout="""\
slue-voxpopuli_fine-tune.tsv  slue-voxpopuli_dev.tsv  slue-voxpopuli_test.tsv (or _test_blind.tsv)
fine-tune/<id>.ogg
dev/<id>.ogg
test/<id>.ogg""",
    accept_first=True,
)

_FOLDER = CorpusSource(
    name="folder",
    title="A folder of recordings",
    description="Recordings that somebody made, and what is written down of each.",
    homepage="",
    citation="",
    license=UNKNOWN,
    where="Write metadata.jsonl beside your recordings: one JSON object a line with `audio` (a path below the "
    "folder) and any labels, such as `text`, `speaker`, `intent`.",
    layout="""\
metadata.jsonl
audio/<any name>.flac (or any other path that metadata.jsonl names)""",
    languages=(),
)

SOURCES: dict[str, CorpusSource] = {
    source.name: source
    for source in (_SLURP, _NLU_EVALUATION, _FLUENT_SPEECH_COMMANDS, _SLUE_VOXCELEB, _SLUE_VOXPOPULI, _FOLDER)
}


def source_of(name: str) -> CorpusSource:
    """The facts about corpus `name`. Raises `ValueError` that lists the names where there is no such corpus."""
    if name not in SOURCES:
        raise ValueError(f"there is no corpus '{name}'; choose one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]


def how_to_get(name: str, data_dir: str | Path) -> str:
    """What to do where the data of corpus `name` is not in `data_dir`: where it is, its license, the folder's look."""
    source = source_of(name)
    text = f"text {source.text_license.name}, audio " if source.text_license else ""
    click = " (to be accepted first)" if source.accept_first else ""
    lines = [f"{source.title} is not here. {source.where}", f"License: {text}{source.license.name}{click}."]
    if source.download:
        lines.append("download=True fetches it for you.")
    tree = "\n".join(f"    {line}" for line in source.layout.splitlines())
    return " ".join(lines) + f"\n{data_dir} must then hold:\n{tree}"
