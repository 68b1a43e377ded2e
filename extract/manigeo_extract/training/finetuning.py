"""Fine-tuning: training that starts from the weights of another (Dyballa, Gerritz & Zucker 2024 fine-tune networks on the
seen classes of a domain, and ask what their layers do with the unseen ones).
"""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from manigeo.errors import InputError
from manigeo_extract.files.checkpoints import Checkpoint
from manigeo_extract.files.fitting import Fit, fit_state
from manigeo_extract.recording.layers import unwrap


@dataclass(frozen=True)
class Start:
    """Origin of the weights that a training starts from.

    ``fresh`` are the tensors of the network that kept their own draw, as the file has none of their name and shape,
    ``left_out`` those of the file that the network has no place for; ``notes`` are for the user to read.
    """

    path: str
    sha256: str
    epoch: int | None
    state_key: str | None
    fresh: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def origin(self) -> dict[str, Any]:
        """Part of the origin that a run keeps: all but the notes."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}

    @property
    def identity(self) -> dict[str, Any]:
        """Origin without the path, which a resumed run must share: where the file lies does not change its content."""
        return {name: value for name, value in self.origin.items() if name != "path"}


def start_from(checkpoint: Checkpoint, model: nn.Module, *, strict: bool = True) -> Start:
    """Give ``model`` the weights of the checkpoint; tensors of another shape, those of a classifier of other classes, keep
    their own draw. Unless ``strict``, so do tensors that the file does not have.

    Raises :class:`~manigeo.errors.InputError`, and leaves the model as it was, where the names do not agree (if
    ``strict``), and where no kernel fits: that is another network, whatever biases may be of one shape.

    >>> import torch
    >>> before, after = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, n)) for n in (10, 3))
    >>> start = start_from(Checkpoint(before.state_dict(), sha256="", path="before.pt"), after)
    >>> start.fresh
    ('1.weight', '1.bias')
    >>> torch.equal(before[0].weight, after[0].weight)
    True
    """
    fit = fit_to_start(checkpoint, model, strict=strict)
    fit.load_into(unwrap(model))
    return Start(
        path=checkpoint.path,
        sha256=checkpoint.sha256,
        epoch=checkpoint.epoch,
        state_key=checkpoint.state_key,
        fresh=tuple(name for name in unwrap(model).state_dict() if name not in fit.state_dict),
        left_out=fit.unexpected,
        notes=(*checkpoint.notes, *fit.notes),
    )


def fit_to_start(checkpoint: Checkpoint, model: nn.Module, *, strict: bool = True) -> Fit:
    """The fit of the checkpoint's weights to a network that may start from them; ``model`` may be without memory.

    Raises what :func:`start_from` raises.
    """
    try:
        fit = fit_state(checkpoint.state_dict, unwrap(model))
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error
    fits = fit.is_of_this_network
    if not fits or (strict and (fit.missing or fit.unexpected or fit.retyped)):
        advice = "is this the architecture it was saved from?" + "; --no-strict takes what fits" * fits
        raise InputError(f"{checkpoint.path}: does not fit the model: {fit.mismatch()}; {advice}")
    return fit
