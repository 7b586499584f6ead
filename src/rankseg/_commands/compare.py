"""``rankseg compare``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankseg._commands._options import (
    BAND,
    CLASSES,
    CLUSTERS,
    DETAILS,
    FROM_LOGITS,
    IGNORE_INDEX,
    INPUT,
    KEY,
    LABELS,
    MAPS,
    OUTPUT,
    RULE_PIXELS,
    SCORE,
    VALID,
    clusters_from,
    command_to_decide,
    maps_as_arguments,
    maps_from,
    option,
)
from rankseg._commands._terminal import check_place, make_folder, open_console, tracker, working
from rankseg._decision.solvers import solvers_taking

if TYPE_CHECKING:
    from rankseg.dataset import DatasetRule
    from rankseg.evaluation import CaseFolder, Comparison, Method
    from rankseg.evaluation.verdict import Verdict
    from rankseg.metrics import Metric

__all__ = ["compare_folder"]

EXAMPLE_PICTURE = "example.png"


METHODS = "Methods"


class MetricChoice(str, Enum):
    """What RankSEG maximises."""

    BOTH = "both"
    DICE = "dice"
    IOU = "iou"


SOLVERS = solvers_taking("correlation")


def compare_folder(
    maps: MAPS,
    labels: LABELS = None,
    key: KEY = None,
    from_logits: FROM_LOGITS = None,
    classes: CLASSES = None,
    ignore_index: IGNORE_INDEX = None,
    valid: VALID = None,
    pruning_prob: Annotated[
        float,
        option(METHODS, "P", "for peak: its least value", min=0.0, max=1.0),
    ] = 0.5,
    presence: Annotated[
        list[str] | None,
        option(METHODS, "RULE", "which are present: peak, argmax, all; repeatable"),
    ] = None,
    metric: Annotated[
        MetricChoice, option(METHODS, "NAME", "dice, iou or both", case_sensitive=False)
    ] = MetricChoice.BOTH,
    solver: Annotated[
        list[str] | None,
        option(METHODS, "NAME", f"{' or '.join(SOLVERS)}; repeatable; else both"),
    ] = None,
    correlation: Annotated[
        list[float] | None,
        option(METHODS, "R", "in [0, 1), shown beside 0; repeatable", min=0.0),
    ] = None,
    every: Annotated[
        bool, option(METHODS, None, "every solver, and a rule for data-set scores", "--all")
    ] = False,
    predicted: Annotated[
        bool, option(SCORE, None, "also show the gain expected without labels", "--predicted")
    ] = False,
    prior_correction: Annotated[
        bool, option(INPUT, None, "undo class_weights of meta.json first", "--prior-correction")
    ] = False,
    calibration: Annotated[
        Path | None, option(METHODS, "FILE", "RankSEG with it, too", dir_okay=False)
    ] = None,
    rule: Annotated[
        Path | None, option(METHODS, "FILE", "RankSEG with it, too", dir_okay=False)
    ] = None,
    settings: Annotated[
        list[Path] | None,
        option(METHODS, "FILE", "of rankseg tune: RankSEG so; repeatable", dir_okay=False),
    ] = None,
    clusters: CLUSTERS = None,
    band: BAND = 0.0,
    details: DETAILS = False,
    report: Annotated[
        Path | None, option(OUTPUT, "FILE", "write an HTML report with pictures", dir_okay=False)
    ] = None,
    output: Annotated[
        Path | None,
        option(OUTPUT, "DIR", "write tables and a picture", "--output", "-o", file_okay=False),
    ] = None,
) -> None:
    """Compare argmax with RankSEG on probability maps with labels.

    Exits with 1 if a file could not be compared; the others are compared all the same.

    To save maps of a PyTorch loop in 2 bytes a value, make a folder maps, then:

    \b
    for images, labels, names in loader:
        probs = model(images).softmax(1).half().cpu().numpy()
        for name, maps, label in zip(names, probs, labels.byte().cpu().numpy()):
            np.savez_compressed(f"maps/{name}.npz", probs=maps, label=label)
            # or: zarr.save_group(f"maps/{name}.zarr", probs=maps, label=label)
    """  # noqa: D301
    from rankseg import RankSEG
    from rankseg._commands._comparison import (
        MARKS,
        print_answer,
        print_details,
        print_not_compared,
    )
    from rankseg._common.arguments import choice
    from rankseg.dataset import DatasetRule
    from rankseg.evaluation import Method, compare, standard_methods

    if output is not None:
        make_folder(output, {**MARKS, EXAMPLE_PICTURE: "rankseg"})  # before the work
    check_place(report)
    metrics: tuple[Metric, ...] = (
        ("dice", "iou") if metric is MetricChoice.BOTH else (metric.value,)
    )
    files: dict[str, list[str]] = {}  # by method: the options of rankseg predict
    try:
        methods = standard_methods(
            pruning_prob,
            metrics,
            None if solver is None else [choice("solver", one, SOLVERS) for one in solver],
            None if correlation is None else sorted({0.0, *correlation}),
            presence or ("peak",),
            every=every,
        )
        if calibration is not None:
            decisions = [RankSEG(one, calibration=calibration) for one in metrics]
            for one in decisions:
                methods += (Method(f"RankSEG {one.metric} calibrated", one, one.correlation),)
                files[methods[-1].name] = ["--calibration", str(calibration)]
        for path in settings or ():
            decide = RankSEG.load(path)
            methods += (Method(path.stem, decide, decide.correlation),)
            files[path.stem] = ["--settings", str(path)]
        if rule is not None:
            rules = [DatasetRule.load(rule)]
            applied = [] if calibration is None else ["--calibration", str(calibration)]
            for method in _by_rule(rules, calibration, presence or (None,)):
                methods += (method,)
                files[method.name] = ["--rule", str(rule), *applied]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    options: dict[str, Any] = {"predict_above": pruning_prob if predicted else None}
    options |= {"band": band} if band else {}
    folder = maps_from(locals())
    if every:
        sample: dict[str, Any] = {"pixels": RULE_PIXELS, "ignore_index": folder.ignore_index}
        track = tracker("Fitting the rule")
        rules = [DatasetRule.fit(track(folder), one, **sample) for one in metrics]
        methods += tuple(_by_rule(rules, None, presence or ("peak",)))
    comparison = compare(
        tracker("Comparing")(folder),
        methods,
        classes=folder.name_classes() or None,
        ignore_index=folder.ignore_index,
        clusters=clusters_from(clusters, folder.names),
        **options,
    )
    console = open_console()
    if prior_correction:
        console.print("Class weights undone: p / w, renormalised over the classes.\n")
    folder = replace(folder, names=comparison.cases)
    named = [one for one in methods if one.name in files]
    judged = _judged(named or methods[2:], metrics[0], bool(named or correlation))
    answer = _verdict(comparison, judged, files.get(judged.name), folder, locals())
    print_answer(console, comparison, answer, pruning_prob)
    if details or predicted:
        print_details(console, comparison, pruning_prob)
    if output is not None:
        with working("Drawing"):
            _write_report(output, comparison, methods, folder, metrics[0])
        console.print(f"Written to {output}", soft_wrap=True)
    if report is not None:
        shown = f"pruning_prob {pruning_prob:g}, band {comparison.band:g}"
        _write_html(report, comparison, methods, folder, answer, pruning_prob, shown)
        console.print(f"Report: {report}", soft_wrap=True)
    print_not_compared(comparison)


def _judged(methods: Sequence[Method], metric: Metric, last: bool) -> Method:
    """Return the last or the first method that maximises the metric, or else of all."""
    fitting = [one for one in methods if getattr(one.decide, "metric", "") == metric]
    return (fitting or methods)[-1 if last else 0]


def _verdict(
    comparison: Comparison,
    judged: Method,
    files: Sequence[str] | None,
    folder: CaseFolder,
    arguments: Mapping[str, Any],
) -> Verdict:
    """Judge the comparison; remedies and the command to decide are those of the user's maps.

    ``files`` are the options that name the files by which the method decides.
    """
    from rankseg.evaluation.verdict import verdict

    maps = maps_as_arguments(arguments)
    metric: Metric = "iou" if getattr(judged.decide, "metric", "") == "iou" else "dice"
    options: list[object] = [*(files or _other_options(judged.decide))]
    if "--settings" not in options:
        options = ["--metric", metric, *options]
    predict = command_to_decide(folder, arguments, options)
    if folder.prior_correction:
        undo = f"rankseg calibrate {maps} --kind prior -o calibration.json"
        predict = f"{undo} && {predict} --calibration calibration.json"
    return verdict(
        comparison,
        metric,
        method=judged.name,
        decide=judged.decide,
        maps=maps,
        class_weights=None if folder.prior_correction else folder.class_weights,
        predict=predict,
    )


def _other_options(decide: Any) -> Iterator[object]:
    """Yield the options of a RankSEG that are not those by default, as arguments."""
    from rankseg import RankSEG

    usual = RankSEG(decide.metric)
    if (decide.solver, decide.correlation) != (usual.solver, usual.correlation):
        usual = RankSEG(decide.metric, solver=decide.solver)  # by name none has a correlation
        yield from ("--solver", decide.solver)
    for name in ("correlation", "presence", "pruning_prob"):
        value = getattr(decide, name)
        if decide.solver in solvers_taking(name) and value != getattr(usual, name):
            yield from (f"--{name.replace('_', '-')}", value)


def _by_rule(
    rules: Iterable[DatasetRule], calibration: Path | None, presences: Sequence[str | None]
) -> Iterator[Method]:
    """Yield the decision of every rule for every rule of presence; None is the default."""
    from rankseg import RankSEG
    from rankseg.evaluation import Method

    for rule, presence in product(rules, presences):
        given: dict[str, Any] = {} if presence is None else {"presence": presence}
        shown = "".join(f" presence={one}" for one in given.values())
        decide = RankSEG(rule.metric, calibration=calibration, rule=rule, **given)
        yield Method(f"RankSEG {rule.metric} rule{shown}", decide)


def _write_report(
    folder: Path,
    comparison: Comparison,
    methods: Sequence[Method],
    maps: CaseFolder,
    metric: Metric,
) -> None:
    """Write tables and a picture of argmax and the RankSEG that maximises the metric."""
    from rankseg.plots import comparison_figure, gain_and_loss

    examples = gain_and_loss(comparison, [methods[0], methods[2]], maps.read, metric=metric)
    classes = comparison.classes
    if len(classes) == 1:
        classes = ("background", *classes)
    comparison.write(folder)
    comparison_figure(folder / EXAMPLE_PICTURE, examples, classes, ignore_index=maps.ignore_index)


def _write_html(
    path: Path,
    comparison: Comparison,
    methods: Sequence[Method],
    maps: CaseFolder,
    answer: Verdict,
    pruning_prob: float,
    settings: str,
) -> None:
    """Write the report, with the reliability of the maps."""
    from rankseg.calibration import reliability
    from rankseg.report import write_report

    track = tracker("Reliability")
    curves = reliability(track(maps), classes=maps.classes, ignore_index=maps.ignore_index)
    corrected = ", class weights undone" if maps.prior_correction else ""
    write_report(
        path,
        comparison,
        methods=methods,
        read=maps.read,
        metric=answer.metric,
        answer=answer,
        reliability=curves,
        ignore_index=maps.ignore_index,
        title=f"{maps.path.name}: argmax against RankSEG",
        pruning_prob=pruning_prob,
        made=f"rankseg compare {maps.path.name}: {settings}{corrected}.",
    )
