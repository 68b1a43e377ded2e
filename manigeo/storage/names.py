"""Names from files that become names of files."""

import re
from hashlib import sha256

_LONGEST = 120  # characters; file systems take 255 bytes, of which endings and a hash need some
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}  # of Windows


def safe_name(text: str, longest: int = _LONGEST) -> str:
    """Name of one file or folder, whatever ``text`` holds: letters of ASCII, digits and ``._+=,-``, other characters as
    ``_``.

    It has no separator, is neither ``..`` nor hidden nor a device; what is longer than ``longest`` ends in a hash of all.

    >>> safe_name("width=16,lr=0.1"), safe_name("../../x"), safe_name("nul.txt")
    ('width=16,lr=0.1', '_.._x', '_nul.txt')
    """
    name = re.sub(r"[^A-Za-z0-9._+=,-]+", "_", text)
    name = re.sub(r"^(\.+_*|-)|\.$|^$", "_", name)
    if name.partition(".")[0].upper() in _DEVICES:
        name = f"_{name}"
    return (
        name
        if len(name) <= longest
        else f"{name[:longest]}-{sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
    )
