"""Test a joint language model of speech units and text: does it carry meaning across modalities, and go on plausibly?

The tiny zoo, offline; the second command trains what writes units down:
    accelerate launch examples/train_sutlm.py
    accelerate launch examples/train_sutlm.py --config examples/configs/unit_transcriber.yaml
    python examples/evaluate_sutlm.py
Your own model and recordings:
    python examples/evaluate_sutlm.py --config FILE.yaml

Context retrieval (CRA) in the four conditions u2u, u2t, t2u and t2t (u: units, t: text); where a judge is named also
the perplexity of what the model says next (PELM), beside that of what was truly said and of the prompt said again; and
how often the attention of a word lands on the units that say it.
Without --config, examples/configs/sutlm_evaluation.yaml lies underneath.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoProcessor

import speechzoo  # noqa: F401  makes its models known to transformers
from speechzoo.data.utterances import UtteranceReader
from speechzoo.evaluation.adapter_report import Stopwatch
from speechzoo.evaluation.context_retrieval import RetrievalSettings
from speechzoo.evaluation.report import Measurement, Report, environment
from speechzoo.evaluation.speech_text_continuations import Sampling
from speechzoo.evaluation.sutlm_evaluation import (
    ContinuationTest,
    JointTest,
    describe_unit_model,
    describe_utterances,
    read_pairs,
)
from speechzoo.evaluation.text_judge import TextJudge
from speechzoo.evaluation.unit_transcriber import UnitTranscriber
from speechzoo.hub_cards.run_report import finish_run
from speechzoo.training.adapter_training import use_all_cores
from speechzoo.training.command_line import as_command, parse_arguments
from speechzoo.training.sutlm_arguments import (
    JointOutputArguments,
    JointTestArguments,
    JudgedArguments,
    ReadingArguments,
)
from speechzoo.training.sutlm_training import reading_fields

GROUPS = (JudgedArguments, ReadingArguments, JointTestArguments, JointOutputArguments)
TINY_ZOO = Path(__file__).parent / "configs" / "sutlm_evaluation.yaml"


def main() -> None:
    judged, reading, tests, output = parse_arguments(__doc__ or "", *GROUPS, underneath=TINY_ZOO)
    use_all_cores()
    watch = Stopwatch()
    judged = replace(judged, model=judged.model.replace("{seed}", str(tests.test_seed)))
    model = AutoModelForCausalLM.from_pretrained(judged.model, revision=judged.model_revision).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = AutoProcessor.from_pretrained(judged.model, revision=judged.model_revision)
    settings = RetrievalSettings(tests.candidates, tests.glue[0], seed=tests.test_seed, rows=output.test_batch_size)
    retrieval = JointTest(model, processor, settings, tests.glue[1:])
    continuations = continuation_test(model, processor, judged, tests, output)

    measurements: list[Measurement] = []
    corpora = []
    with watch("corpora and units"):
        reader = UtteranceReader.of(processor, unit_model=judged.unit_model, **reading_fields(reading))
        test_data = {
            name: reader.read(source, tests.test_clips, reading.noise_db) for name, source in tests.test_data.items()
        }
    for name, source in tests.test_data.items():
        pairs = read_pairs(test_data[name], source, reader.frame_rate, tests.first_column)
        corpora.append(describe_utterances(name, "final test", test_data[name], reader.frame_rate))
        with watch("retrieval"):
            measurements += retrieval.run(name, pairs, dataset=source)
            measurements += retrieval.attention(name, test_data[name], reader.frame_rate, dataset=source)
        if continuations is not None:
            with watch("continuations"):
                measurements += continuations.run(name, pairs, dataset=source)
                measurements += continuations.transcriber_rows(name, test_data[name], dataset=source)

    report = Report(
        title=output.card_title,
        system=model.config.model_type,
        command=as_command(),
        seeds={"candidates and draws": tests.test_seed},
        environment=environment(),
        measurements=measurements,
        wall_seconds=watch.seconds,
        limits=output.limits,
        corpora=corpora,
        backbones=[describe_unit_model(processor)],
        settings={name: value for name, value in vars(judged).items() if value is not None},
        paper="2310.08715",
        pipeline_tag="text-generation",
    )
    finish_run(report, output)


def continuation_test(
    model: AutoModelForCausalLM,
    processor: AutoProcessor,
    judged: JudgedArguments,
    tests: JointTestArguments,
    output: JointOutputArguments,
) -> ContinuationTest | None:
    """What judges continuations; `None` without a judge."""
    if judged.judge is None:
        return None
    sampling = Sampling(
        temperature=judged.temperature,
        top_k=judged.top_k,
        top_p=judged.top_p,
        text_tokens=judged.text_tokens,
        unit_tokens=judged.unit_tokens,
        samples=judged.samples,
        seed=tests.test_seed,
        glue=tests.glue[0],
        batch_size=output.test_batch_size,
    )
    transcriber = UnitTranscriber.from_pretrained(judged.transcriber) if judged.transcriber else None
    if transcriber is not None:
        transcriber.model.to(model.device)
    judge = TextJudge.from_pretrained(judged.judge, sign=judged.judge_sign)
    judge.model.to(model.device)
    return ContinuationTest(model, processor, judge, transcriber, sampling, tests.glue[1:])


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
