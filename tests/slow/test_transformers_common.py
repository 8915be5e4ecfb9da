"""transformers' own common tests on our classes: the model and processor mixins of the very version installed.

The mixins are not part of the installed package. They come from its source distribution, downloaded from the package
index, and are run by `tools/hf_common_tests.py` of the test data on what `common_tests_spec.py` describes.
"""

import itertools
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import transformers

pytestmark = pytest.mark.slow

SPEC = Path(__file__).parent / "common_tests_spec.py"
# How many tests passed when this was written, less a few, so that a run that tests nothing does not pass.
LEAST_PASSED = {
    "CausalModel": 100,
    "EncoderDecoder": 92,
    "TrainedBackbones": 104,
    "SealProjector": 100,
    "SUTLMOverLlama": 104,
    "SUTLMOverGPT2": 98,
    "SpeechLMOnSpeech": 90,
    "SpeechUTOnSpeech": 90,
    "SpeechUTWrites": 87,
    "Processor": 25,
}


@dataclass
class Outcome:
    cases: dict[str, dict[str, dict[str, str]]]  # case, test: status, why
    lines: list[str]  # what the runner printed


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution of the transformers that is installed."""
    folder = tmp_path_factory.mktemp("sdist")
    wanted = f"transformers=={transformers.__version__}"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*pip, "--dest", str(folder), wanted], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{wanted} could not be downloaded: {done.stderr[-2000:]}"
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def outcome(source_distribution: Path, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    runner = test_data / "tools" / "hf_common_tests.py"
    if not runner.is_file():
        pytest.skip(f"{runner} is missing: the test data at SPEECHZOO_TEST_DATA holds no runner")
    report = tmp_path_factory.mktemp("report") / "report.json"
    command = [sys.executable, str(runner), "--spec", str(SPEC), "--mixins", "model,processor", "--json", str(report)]
    environment = {**os.environ, "HF_TESTS_PATH": str(source_distribution)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert report.is_file(), done.stderr[-3000:]
    return Outcome(json.loads(report.read_text())["cases"], done.stdout.splitlines())


@pytest.mark.parametrize("case", LEAST_PASSED)
def test_common_tests_pass(outcome, case):
    """Nothing fails but what the specification expects to, with a reason; and what it expects does fail."""
    lines = itertools.dropwhile(lambda line: not line.startswith(f"{case}: "), outcome.lines)
    summary = next(lines)
    failures = itertools.takewhile(lambda line: line.startswith("  "), lines)
    assert "not expected: 0" in summary, "\n".join([summary, *failures])
    assert "expected but now ok" not in summary, summary
    passed = Counter(test["status"] for test in outcome.cases[case].values())["ok"]
    assert passed >= LEAST_PASSED[case]
