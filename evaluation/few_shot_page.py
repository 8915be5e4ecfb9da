"""The Markdown page of a few-shot report: accuracies by shots, other ways to predict, classes and confusions."""

import math
from collections.abc import Sequence
from typing import Any

from .few_shot_harness import NOTHING
from .few_shot_report import FewShotDetail, FewShotDifference, FewShotReport, FewShotResult, FewShotSetting

# A row of a table: system, as what clips are shown, how they are chosen.
_Line = tuple[str, str, str]
_MOST_CLASSES = 12  # of a confusion matrix that is shown whole
_MOST_CONFUSIONS = 20


def few_shot_page(report: FewShotReport) -> str:
    """What was asked, a table for each task, differences, what predicts best, classes, the command."""
    parts = [f"# {report.title}", _how_made(report)]
    for task in dict.fromkeys(one.setting.task for one in report.results):
        parts += [f"## {task}", accuracy_table(report, task), compared_with(report, task)]
        parts += [_other_texts(report, task), _asked(report, task), _prompt(report, task)]
        if differences := [one for one in report.differences if one.setting.task == task]:
            parts.append(_difference_table(differences))
        parts += [_rule_table(report, task), _details(report, task)]
    if limits := [*report.limits, *(f"Not run yet: {name}." for name in report.missing)]:
        parts += ["## To know", "\n".join(f"- {limit}" for limit in limits)]
    parts += ["## Command", f"```\n{report.command}\n```"]
    return "\n\n".join(filter(None, parts)) + "\n"


def accuracy_table(report: FewShotReport, task: str) -> str:
    """Accuracies of a task by the report's first rule: a line for each system and choice of demonstrations."""
    chosen = [one for one in report.results if (one.setting.task, one.setting.rule) == (task, report.rule)]
    shots = sorted({one.setting.shots for one in chosen})
    header = ["system", "shown as", "chosen by", *(_shots(number) for number in shots)]
    rows = [
        [*line, *(format_result(result_at(chosen, line, number)) for number in shots)]
        for line in result_lines([one.setting for one in chosen])
    ]
    return _table(header, rows, numbers=len(shots))


def result_lines(settings: Sequence[FewShotSetting]) -> list[_Line]:
    """System, demonstrations and selection of every line. A system's result without shots belongs to all its lines."""
    lines = dict.fromkeys((one.system, one.demonstrations, one.selection) for one in settings)
    shown = {system for system, demonstrations, _ in lines if demonstrations != NOTHING}
    return [line for line in lines if line[1] != NOTHING or line[0] not in shown]


def format_result(result: FewShotResult | FewShotDifference | None) -> str:
    """`0.812 [0.771, 0.850]`, or a dash."""
    if result is None:
        return "\u2013"
    if result.low is None or result.high is None:
        return f"{result.value:.3f}"
    return f"{result.value:.3f} [{result.low:.3f}, {result.high:.3f}]"


def result_at(results: Sequence[FewShotResult], line: _Line, shots: int) -> FewShotResult | None:
    """The result of a line with so many shots."""
    system, *choice = line
    wanted = [choice, [NOTHING, NOTHING]] if shots == 0 else [choice]
    found = (
        one
        for one in results
        if one.setting.system == system
        and one.setting.shots == shots
        and [one.setting.demonstrations, one.setting.selection] in wanted
    )
    return next(found, None)


def _how_made(report: FewShotReport) -> str:
    seeds = f"{len(report.seeds)} seed{'' if len(report.seeds) == 1 else 's'}"
    units = report.settings["comparison"]["resampled"]
    hardware = f"{report.environment.hardware}; " if report.environment else ""
    minutes = math.ceil(sum(report.wall_seconds.values()) / 60)
    return (
        f"Accuracies with 95 % intervals over {units} and {seeds}; over {units} alone where no seed decides anything, "
        f"which was run once. Answers are predicted by `{report.rule}` unless a table says otherwise. "
        f"{hardware}{minutes} min in all; {report.date[:10]}."
    )


def compared_with(report: FewShotReport, task: str) -> str:
    """A sentence on guesses, and on queries whose words were shown."""
    found = [one for one in report.results if one.setting.task == task]
    some = found[0]
    same = max(found, key=lambda one: one.same_text)
    sentence = (
        f"{some.items} queries{f' of {some.speakers} speakers' if some.speakers else ''}. Chance {some.chance:.3f}, "
        f"majority class {some.majority:.3f}."
    )
    if not same.same_text:
        return sentence + " No demonstration says what its query says."
    setting = same.setting
    return sentence + (
        f" A demonstration says what the query says for {same.same_text:.3f} of the queries with "
        f"{_shots(setting.shots)}, {setting.selection}; that is the most."
    )


def _other_texts(report: FewShotReport, task: str) -> str:
    """Accuracies over the queries whose words are not shown, where some are."""
    chosen = [one for one in report.results if (one.setting.task, one.setting.rule) == (task, report.rule)]
    shots = sorted({one.setting.shots for one in chosen if one.same_text})
    lines = [one for one in result_lines([one.setting for one in chosen]) if one[1] != NOTHING]
    if not shots:
        return ""
    rows = [[*line, *(_of_others(result_at(chosen, line, number)) for number in shots)] for line in lines]
    header = ["where no demonstration says it (share of queries)", "shown as", "chosen by", *map(_shots, shots)]
    return _table(header, rows, numbers=len(shots))


def _of_others(result: FewShotResult | None) -> str:
    if result is None or result.other_text is None:
        return "\u2013"
    return f"{result.other_text:.3f} ({1 - result.same_text:.2f})"


def _asked(report: FewShotReport, task: str) -> str:
    """What numbers of shots and words of classes mean, where it is not the plain case."""
    settings: dict[str, Any] = report.settings["tasks"][task]
    ways, classes = settings.get("ways"), len(settings["classes"])
    told = [
        f"Each query is asked among {ways} of {classes} classes." if ways and ways < classes else "",
        "Shots are counted by class: so many of each are shown." if settings.get("shots_of") == "class" else "",
        "Classes go by words drawn anew, which say nothing of them." if settings.get("symbols") else "",
    ]
    return " ".join(filter(None, told))


def _prompt(report: FewShotReport, task: str) -> str:
    settings: dict[str, Any] = report.settings["tasks"][task]
    template = settings["template"]
    text = f"{template.get('instruction', '')}{template['demonstration']}{template['query']}".replace("\n", "⏎")
    return f"Prompt of one shot: `{text}`"


def _difference_table(differences: Sequence[FewShotDifference]) -> str:
    shots = sorted({one.setting.shots for one in differences})
    lines = dict.fromkeys(
        (one.setting.system, one.setting.demonstrations, one.setting.selection) for one in differences
    )
    by_place = {
        ((one.setting.system, one.setting.demonstrations, one.setting.selection), one.setting.shots): one
        for one in differences
    }
    header = [f"minus {differences[0].baseline}", "shown as", "chosen by", *(_shots(number) for number in shots)]
    rows = [[*line, *(format_result(by_place.get((line, number))) for number in shots)] for line in lines]
    return _table(header, rows, numbers=len(shots))


def _rule_table(report: FewShotReport, task: str) -> str:
    """The same answers predicted in every way, with the most shots; nothing where there is one way."""
    chosen = [one for one in report.results if one.setting.task == task]
    rules = list(dict.fromkeys(one.setting.rule for one in chosen))
    if len(rules) < 2:
        return ""
    shots = max(one.setting.shots for one in chosen)
    by_rule = {rule: [one for one in chosen if one.setting.rule == rule] for rule in rules}
    header = [f"with {_shots(shots)}", "shown as", "chosen by", *rules]
    rows = [
        [*line, *(format_result(result_at(by_rule[rule], line, shots)) for rule in rules)]
        for line in result_lines([one.setting for one in chosen if one.setting.shots == shots])
    ]
    return _table(header, rows, numbers=len(rules))


def _details(report: FewShotReport, task: str) -> str:
    """Classes and confusions of every system with the most shots, folded away."""
    chosen = [one for one in report.details if one.setting.task == task]
    shots = max((one.setting.shots for one in chosen), default=0)
    return "\n\n".join(_detail(one) for one in chosen if one.setting.shots == shots)


def _detail(detail: FewShotDetail) -> str:
    setting = detail.setting
    shown = f", shown as {setting.demonstrations}, {setting.selection}" if setting.shots else ""
    classes = _table(
        ["class", "precision", "recall", "F1", "queries, all seeds"],
        [
            [one.name, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", str(one.items)]
            for one in detail.classes
        ],
        numbers=4,
    )
    summary = f"<summary>{setting.system}, {_shots(setting.shots)}{shown}: classes and confusions</summary>"
    return f"<details>{summary}\n\n{classes}\n\n{_confusion(detail)}\n\n</details>"


def _confusion(detail: FewShotDetail) -> str:
    """The matrix, or of more classes the most frequent confusions."""
    answers = sorted({answer for row in detail.confusion.values() for answer in row} | set(detail.confusion))
    if len(answers) <= _MOST_CLASSES:
        rows = [
            [label, *(str(row.get(answer, 0)) for answer in answers)]
            for label, row in sorted(detail.confusion.items())
        ]
        return _table(["class \\ answer", *answers], rows, numbers=len(answers))
    wrong = [
        (count, label, answer)
        for label, row in detail.confusion.items()
        for answer, count in row.items()
        if answer != label
    ]
    most = sorted(wrong, key=lambda one: (-one[0], one[1:]))[:_MOST_CONFUSIONS]
    return _table(["class", "answered", "times"], [[label, answer, str(count)] for count, label, answer in most], 1)


def _shots(number: int) -> str:
    return f"{number} shot{'' if number == 1 else 's'}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A Markdown table whose last columns are numbers."""
    rule = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
