"""The table of solvers: what each decides, by which function, and with which options.

Checks of options, command line, app, tuning and ONNX read this table. It imports no torch, since
``rankseg --help`` lists the solvers: functions are named by module and name, such as
``"rma.own_masks"``, and `rankseg._decision.solve` imports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Solver:
    """A row of the table.

    Attributes
    ----------
    metrics
        The metrics that the solver maximises.
    options
        For each output mode that the solver decides: the options it takes, without those that all
        solvers take.
    one_channel
        The function that returns the masks of maps of one channel, in every output mode.
    several_classes
        For each output mode: the function that returns the masks or labels of maps of several
        classes. If an output mode is in ``options`` but not here, the solver decides it only for
        maps of one channel.
    default_for
        The output modes in which ``'auto'`` is this solver, if it maximises the metric.
    reads_values
        True if the function reads results on the host before it ends. Then the values of the maps
        must be known to be probabilities before it starts.
    untraceable
        Why no graph of ``torch.compile`` or ``torch.export`` can hold the functions, after the name
        of the solver in a message; empty if a graph can.
    exportable
        True if ONNX has operators for every step.
    presence
        The rule for which classes are present, if none is given.
    needs
        The option that must be given. If it is, ``'auto'`` is this solver.
    """

    metrics: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    one_channel: str
    several_classes: Mapping[str, str]
    default_for: tuple[str, ...] = ()
    reads_values: bool = True
    untraceable: str = ""
    exportable: bool = False
    presence: str = "peak"
    needs: str | None = None

    def decides(self, metric: str, output_mode: str) -> bool:
        """Return whether the solver decides for this metric and output, perhaps one channel only.

        See ``several_classes``.
        """
        return metric in self.metrics and output_mode in self.options


BA_OR_TRNA = Solver(  # the paper does not say how classes share pixels
    metrics=("dice",),
    options={"multiclass": ("eps", "void_index"), "multilabel": ("eps",)},
    one_channel="ba.ba_masks",
    several_classes={"multilabel": "ba.ba_masks"},
    untraceable="sorts as many values as the maps demand",
)

OF_LABELS = ("presence", "unassigned_policy", "void_index")

SOLVERS: dict[str, Solver] = {
    "RMA": Solver(
        metrics=("dice", "iou"),
        options={
            "multiclass": (*OF_LABELS, "correlation", "safe_screening"),
            "multilabel": ("presence", "correlation", "safe_screening"),
        },
        one_channel="rma.own_masks",
        several_classes={"multiclass": "rma.shared_labels", "multilabel": "rma.own_masks"},
        default_for=("multilabel",),
        reads_values=False,
        exportable=True,
    ),
    "joint": Solver(
        metrics=("dice", "iou"),
        options={"multiclass": (*OF_LABELS, "correlation", "safe_screening")},
        one_channel="rma.own_masks",  # a class alone shares pixels with no other class
        several_classes={"multiclass": "joint.joint_labels"},
        default_for=("multiclass",),
        exportable=True,
    ),
    "DEP": Solver(
        metrics=("dice", "iou"),
        options={
            "multiclass": (*OF_LABELS, "theta", "amplitude"),
            "multilabel": ("presence", "theta", "amplitude"),
        },
        one_channel="dependent.dependent_masks",
        several_classes={
            "multiclass": "dependent.dependent_labels",
            "multilabel": "dependent.dependent_masks",
        },
        untraceable="takes as many steps as the maps demand",
    ),
    "exact": Solver(
        metrics=("dice", "iou"),
        options={"multiclass": OF_LABELS, "multilabel": ("presence",)},
        one_channel="rma.own_masks",
        several_classes={"multiclass": "rma.shared_labels", "multilabel": "rma.own_masks"},
    ),
    "BA": BA_OR_TRNA,
    "TRNA": BA_OR_TRNA,
    "BA+TRNA": BA_OR_TRNA,
    "TR": Solver(
        metrics=("acc",),
        options={"multilabel": ()},
        one_channel="baselines.threshold_masks",
        several_classes={"multilabel": "baselines.threshold_masks"},
        default_for=("multilabel",),
        reads_values=False,
        exportable=True,
    ),
    "argmax": Solver(
        metrics=("acc",),
        options={"multiclass": ("void_index",), "multilabel": ()},
        one_channel="baselines.threshold_masks",
        several_classes={
            "multiclass": "baselines.argmax_labels",
            "multilabel": "baselines.argmax_masks",
        },
        default_for=("multiclass",),
        reads_values=False,
        exportable=True,
    ),
    "dataset": Solver(
        metrics=("dice", "iou"),
        options={
            "multiclass": ("rule", "presence", "void_index"),
            "multilabel": ("rule", "presence"),
        },
        one_channel="dataset.dataset_masks",
        several_classes={
            "multiclass": "dataset.dataset_labels",
            "multilabel": "dataset.dataset_masks",
        },
        reads_values=False,
        exportable=True,
        presence="all",  # the offset of a class is the price of its false pixels
        needs="rule",
    ),
}


EXPORTABLE = tuple(name for name, solver in SOLVERS.items() if solver.exportable)
"""The solvers that ONNX has operators for."""


def solvers_for(metric: str, output_mode: str) -> list[str]:
    """Return the names of the solvers that decide for this metric and output."""
    return [name for name, solver in SOLVERS.items() if solver.decides(metric, output_mode)]


def solvers_taking(option: str, output_mode: str | None = None) -> tuple[str, ...]:
    """Return the names of the solvers that take an option, in ``output_mode`` or in any mode."""
    return tuple(
        name
        for name, solver in SOLVERS.items()
        for modes in [solver.options if output_mode is None else {output_mode}]
        if any(option in solver.options.get(mode, ()) for mode in modes)
    )
