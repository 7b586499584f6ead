"""Folders of labelled probability maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rankseg._common.public import public
from rankseg._common.warn import warn
from rankseg._decision.options import checked
from rankseg._decision.prior_correction import prior_correction
from rankseg._files.batch import reason_of
from rankseg._files.folders import file_of, shortened, stem
from rankseg.evaluation.case_files import CaseFiles, find_maps, is_of_nnunet
from rankseg.evaluation.label_folders import LabelFolder
from rankseg.evaluation.labelled_cases import (
    IGNORE_INDEX,
    Case,
    Failure,
    IgnoreIndex,
    ignored_label,
    mask_as_classes,
    named_classes,
)
from rankseg.evaluation.meta import META, read_dataset, read_meta

__all__ = ["CaseFolder", "cases", "read_case"]


def read_case(path: Path | str, *, labelled: bool = True) -> Case:
    """Read one file with both maps and label: ``ID.npz`` or ``ID.zarr``.

    Parameters
    ----------
    path : path
        Holds ``probs``, floating (classes, *spatial), and ``label``, integer or bool (*spatial).
        Other arrays are left alone.
    labelled : bool
        Whether to read the label; else it is 0 everywhere.

    Returns
    -------
    Case
        Named after the file; the maps in the dtype stored. Pixels of which all classes are NaN are
        left out.

    Raises
    ------
    ValueError
        If the file cannot be read, an array is missing, or dtypes or shapes do not fit.
    """
    return CaseFiles({stem(path): [Path(path)]}).read(stem(path), labelled)


def cases(
    maps: Path | str,
    labels: Path | str | None = None,
    *,
    key: str | None = None,
    from_logits: str | None = None,
    classes: int | Sequence[str] | None = None,
    ignore_index: IgnoreIndex = "default",
    valid: Path | str | None = None,
    prior_correction: bool = False,
    labelled: bool = True,
) -> CaseFolder:
    """Find labelled maps in files: what `compare`, ``fit`` and ``tune`` take.

    Parameters
    ----------
    maps : path
        A folder of maps, or one file, in the formats of `rankseg.prediction.predict_files`. Or the
        folder that ``nnUNetv2_predict --save_probabilities`` wrote: of ``CASE.npz``, read with the
        axes of the label, beside ``CASE.nii.gz`` or ``CASE.pkl``.
    labels : path, optional
        The folder of label maps, matched by their names without endings, in the formats of
        `evaluate`. NIfTI labels are turned to the orientation of the maps. By default ``.npz`` and
        ``.zarr`` files hold both ``probs`` and ``label``.
    key : str, optional
        Which array of a file of maps that holds several.
    from_logits : {'softmax', 'sigmoid'}, optional
        The function that turns the maps into probabilities, if they are logits.
    classes : int or sequence of str, optional
        How many classes there are, or their names; by default those of ``meta.json``, of nnU-Net's
        ``dataset.json``, or as many as the first maps have.
    ignore_index : int, optional
        Pixels whose label has this value do not count: by default what ``meta.json`` or
        ``dataset.json`` says, or else 255 if that is no class. None: all do.
    valid : path, optional
        A folder of masks, matched by name: where they are 0, pixels are left out.
    prior_correction : bool
        Whether to undo the class weights that ``meta.json`` names.
    labelled : bool
        Whether maps have labels. If not, files of all formats are found without ``labels``; iterate
        over ``without_labels()``.

    Returns
    -------
    CaseFolder
        Yields the cases one by one, as often as it is iterated over. A case that cannot be read is
        a `Failure` with the reason: one without a label, too. Pixels are left out of which all
        classes are NaN or have the nodata value of a GeoTIFF. Pixels whose label has the nodata
        value of a GeoTIFF are decided and do not count.

    Raises
    ------
    FileNotFoundError
        If a folder is missing or holds nothing to read.
    OSError
        If ``meta.json`` or ``dataset.json`` cannot be read.
    TypeError, ValueError
        If an option or ``meta.json`` is not valid, no map has a label, maps of nnU-Net are of
        regions, or 255 is a class and no ignored label is given.

    Warns
    -----
    UserWarning
        If labels have no maps, or a folder holds files of formats that are not read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from rankseg.evaluation import cases
    >>> folder = tempfile.mkdtemp()
    >>> probs = np.array([[[0.9, 0.3]], [[0.1, 0.7]]], np.float16)  # classes, height, width
    >>> np.savez(f"{folder}/a.npz", probs=probs, label=np.array([[0, 1]]))
    >>> for case in cases(folder):
    ...     print(case.name, tuple(case.probs.shape), case.label.tolist())
    a (2, 1, 2) [[0, 1]]
    """
    path = Path(maps)
    found = CaseFiles(
        find_maps(path, labels is not None or not labelled),
        None if labels is None else LabelFolder.open(labels),
        None if valid is None else LabelFolder.open(valid),
        key,
        checked("from_logits", from_logits),
    )
    for folder in (found.labels, found.valid):
        if folder is not None:
            _check_names(path, found, folder)
    names, index, weights = read_meta(path / META)
    if _of_nnunet(found):
        beside = [] if found.labels is None else [found.labels.path.resolve().parent]
        known, ignored = read_dataset([path, *path.resolve().parents[:2], *beside])
        names, index = names or known, ignored if index == "default" else index
    if classes is not None:
        names = named_classes(classes)
    num_classes = found.count_classes() if names is None else len(names)
    index = ignored_label(index if ignore_index == "default" else ignore_index, num_classes)
    return CaseFolder(
        path, tuple(found.maps), names, index, weights, prior_correction, num_classes, found
    )


def _of_nnunet(found: CaseFiles) -> bool:
    return any(is_of_nnunet(file) for files in found.maps.values() for file in files)


def _check_names(path: Path, found: CaseFiles, folder: LabelFolder) -> None:
    """Refuse a folder of which no file belongs to a case; warn of files that belong to none."""
    left = [case for case in folder.files if case not in found.maps]
    if not folder.files.keys() & found.maps.keys():
        raise ValueError(
            f"no file in {folder.path} is called like maps in {path}: there are "
            f"{shortened(left)}, and maps of {shortened(found.maps)}; rename them, such as a.png "
            "for a.npz"
        )
    if left:
        warn(f"not used: {shortened(left)} in {folder.path}, without maps in {path}")


@public("rankseg.evaluation")
@dataclass(frozen=True)
class CaseFolder:
    """Labelled maps in files, read one case at a time while it is iterated over: see `cases`.

    Parameters
    ----------
    path : Path
        The folder.
    names : tuple of str
        The names of the cases, sorted.
    classes : tuple of str or None
        From ``meta.json``, say; None if nothing names them.
    ignore_index : int or None
        From ``meta.json``, say, where null means that every pixel counts; 255 if there is no entry.
    class_weights : tuple of float or None
        From ``meta.json``: the weights of the loss that the network was trained with.
    prior_correction : bool
        Whether the effect of these weights is removed from the maps that are read, by
        `rankseg.calibration.prior_correction`.
    num_classes : int
        How many classes most of the first maps have; 0 if none can be read.
    files : CaseFiles, optional
        Where maps and labels are; by default both in ``ID.npz`` files of the folder.

    Raises
    ------
    ValueError
        If ``prior_correction`` is True and there are no class weights.
    """

    path: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    ignore_index: int | None = IGNORE_INDEX
    class_weights: tuple[float, ...] | None = None
    prior_correction: bool = False
    num_classes: int = 0
    files: CaseFiles | None = None

    def __post_init__(self) -> None:
        if self.prior_correction and self.class_weights is None:
            raise ValueError(
                f"prior_correction needs class_weights, of which {self.path / META} says nothing"
            )

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        prior_correction: bool = False,
        ignore_index: IgnoreIndex = "default",
    ) -> CaseFolder:
        """Open a folder of files that hold both maps and labels: see `cases`."""
        return cases(path, ignore_index=ignore_index, prior_correction=prior_correction)

    def name_classes(self) -> tuple[str, ...]:
        """Return the class names: by default ``class 0`` and so on, as many as most maps have.

        The first maps tell how many. If none can be read there is no name.
        """
        if self.classes is not None:
            return self.classes
        num_classes = self.num_classes or self._sources.count_classes()
        return named_classes(num_classes) if num_classes else ()

    @property
    def of_nnunet(self) -> bool:
        """Whether ``nnUNetv2_predict --save_probabilities`` wrote the maps."""
        return _of_nnunet(self._sources)

    @property
    def _sources(self) -> CaseFiles:
        """Where maps and labels are."""
        return self.files or CaseFiles(
            {name: [file_of(self.path, name, ".npz")] for name in self.names}
        )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Case | Failure]:
        return self._read_all(labelled=True)

    def without_labels(self) -> Iterator[Case | Failure]:
        """Yield the cases of files that need not hold a label; the label is 0 everywhere."""
        return self._read_all(labelled=False)

    def _read_all(self, labelled: bool) -> Iterator[Case | Failure]:
        for name in self.names:
            try:
                yield self.read(name, labelled=labelled)
            except Exception as error:  # libraries that read files raise what they like
                yield Failure(name, reason_of(error))

    def read(self, name: str, *, labelled: bool = True) -> Case:
        """Read the case of one name.

        With two classes or one channel, a mask of 0 and 255 is read as one of 0 and 1 if
        ``ignore_index`` is None. Errors are those of `read_case` and of
        `rankseg.calibration.prior_correction`; maps that are corrected are float32 or wider.
        """
        case = self._sources.read(name, labelled, self.ignore_index)
        label = mask_as_classes(case.label, len(case.probs), self.ignore_index)
        case = replace(case, label=label)
        if self.class_weights is None or not self.prior_correction:
            return case
        # Half precision would lose what division by a large weight makes small.
        probs = case.probs.to(torch.promote_types(case.probs.dtype, torch.float32))
        return replace(case, probs=prior_correction(probs[None], self.class_weights)[0])
