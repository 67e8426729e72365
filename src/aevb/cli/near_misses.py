"""What somebody meant who typed something else."""

import difflib
import re
from collections.abc import Sequence

__all__ = ["did_you_mean"]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The known word that is nearest, as words to append; nothing where none is near.

    Near is what differs in case or hyphens, has the same last part, is made of the initials, as
    ``--lr`` for ``--learning_rate``, or differs in few letters.

    Args:
        word: What was typed.
        known: What would have been understood; of equally near ones, the first.

    Example:
        >>> did_you_mean("--latent-dim", ["--epochs", "--model.latent_dim"])
        ' (did you mean --model.latent_dim?)'
        >>> did_you_mean("--lr", ["--learning_rate"])
        ' (did you mean --learning_rate?)'
        >>> did_you_mean("nonsense", ["VAE"])
        ''
    """
    plain = {entry: _plain(entry) for entry in known}
    typed = _plain(word)
    rules = (
        lambda text: text == typed,
        lambda text: text.rpartition(".")[2] == typed.rpartition(".")[2],
        lambda text: len(typed) > 1 and _initials(text) == typed,
    )
    for rule in rules:
        if found := next((entry for entry, text in plain.items() if rule(text)), None):
            return f" (did you mean {found}?)"
    close = difflib.get_close_matches(typed, plain.values(), n=1)
    close = close or difflib.get_close_matches(
        typed.rpartition(".")[2], [text.rpartition(".")[2] for text in plain.values()], n=1
    )
    if not close:
        return ""
    found = next(e for e, text in plain.items() if close[0] in (text, text.rpartition(".")[2]))
    return f" (did you mean {found}?)"


def _plain(word: str) -> str:
    return word.lstrip("-").lower().replace("-", "_")


def _initials(text: str) -> str:
    return "".join(re.findall(r"(?:^|_)(\w)", text.rpartition(".")[2]))
