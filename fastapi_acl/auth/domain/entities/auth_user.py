"""Le compte, et ce qu'un nom, une adresse et un mot de passe doivent être."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from fastapi_acl.shared.exceptions import InvalidUsernameError, WeakPasswordError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_USERNAME_LENGTH: Final = 64
MAX_EMAIL_LENGTH: Final = 190
MAX_PASSWORD_LENGTH: Final = 1024
MIN_BEYOND_USERNAME: Final = 6
USERNAME_PUNCTUATION: Final = frozenset("._-+")
NEUTRAL_CATEGORIES: Final = frozenset({"Nd", "Mn", "Mc"})
"""Chiffres et signes combinants : ils vont avec toute écriture."""

HIDDEN_RANGES: Final = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0xFE00, 0xFE0F),
    (0xE0100, 0xE01EF),
)
"""Lettres et signes que rien ne dessine (`Default_Ignorable_Code_Point`) : deux noms distincts paraîtraient égaux."""

JAPANESE: Final = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"})
"""Le japonais s'écrit avec tous ces signes à la fois : ils ne font qu'une écriture (UTS 39, 5.1, `Jpan`)."""


DECEPTIVE_RANGES: Final = (
    (0x0131, 0x0131),  # i sans point
    (0x0237, 0x0237),  # j sans point
    (0x0250, 0x02AF),  # alphabet phonétique
    (0x0307, 0x0307),  # point en chef, invisible sur un i
    (0x0334, 0x0338),  # barres et tildes superposés
    (0x1D00, 0x1DBF),  # petites capitales et phonétique étendue
)
"""Lettres et signes qui se dessinent comme d'autres, plus courants (UTS 39, 4)."""


def _read_clock() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(slots=True, kw_only=True)
class AuthUser:
    """Compte capable de s'authentifier.

    L'identifiant ne change jamais : c'est lui, et non le nom, que portent les règles de politique. La version de
    session avance quand tous les jetons du compte doivent cesser d'avoir cours.
    """

    username: str
    email: str | None = None
    hashed_password: str = field(repr=False)
    id: UUID = field(default_factory=uuid4)
    is_active: bool = True
    is_verified: bool = False
    session_version: int = 0
    created_at: datetime = field(default_factory=_read_clock)
    updated_at: datetime = field(default_factory=_read_clock)

    @property
    def is_authenticated(self) -> bool:
        """Vrai si ce compte, dont l'identité est prouvée, peut agir : une désactivation le lui ôte."""
        return self.is_active


def fold(name: str) -> str:
    """Renvoie la clé sous laquelle deux noms n'en font qu'un : NFKC, casse repliée.

    Source: Unicode Standard Annex 31, identifiants et comparaison (toNFKC_Casefold)
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def check_username(name: str) -> str:
    """Renvoie le nom tel qu'il sera montré (NFKC).

    Raises:
        InvalidUsernameError: longueur, caractère refusé ou mélange d'écritures (UTS 39).
    """
    shown = unicodedata.normalize("NFKC", name)
    if not 1 <= len(shown) <= MAX_USERNAME_LENGTH or len(fold(shown)) > MAX_EMAIL_LENGTH:
        message = f"Le nom d’utilisateur compte de 1 à {MAX_USERNAME_LENGTH} caractères."
        raise InvalidUsernameError(message)
    if not all(map(_is_allowed, shown)) or unicodedata.category(shown[0])[0] == "M":
        message = "Le nom d’utilisateur n’admet que des lettres, des chiffres et « . _ - + »."
        raise InvalidUsernameError(message)
    if len(_list_scripts(shown)) > 1:
        message = "Le nom d’utilisateur mélange plusieurs écritures, ce qui permettrait d’imiter un autre nom."
        raise InvalidUsernameError(message)
    return shown


def _is_allowed(character: str) -> bool:
    """Dit si un caractère peut figurer dans un nom."""
    if any(first <= ord(character) <= last for first, last in (*HIDDEN_RANGES, *DECEPTIVE_RANGES)):
        return False
    category = unicodedata.category(character)
    return character in USERNAME_PUNCTUATION or category in NEUTRAL_CATEGORIES or category.startswith("L")


def _list_scripts(text: Iterable[str]) -> set[str]:
    """Renvoie les écritures des lettres, d'après le premier mot de leur nom Unicode (`LATIN`, `CYRILLIC`…)."""
    letters = (character for character in text if unicodedata.category(character)[0] == "L")
    words = {unicodedata.name(character, "?").split()[0] for character in letters} | _list_digit_scripts(text)
    return (words - JAPANESE) | {"JAPANESE"} if words & JAPANESE else words


def _list_digit_scripts(text: Iterable[str]) -> set[str]:
    """Renvoie les écritures des chiffres autres qu'ASCII : eux aussi s'imitent d'une écriture à l'autre."""
    digits = (character for character in text if unicodedata.category(character) == "Nd" and not character.isascii())
    return {unicodedata.name(character).split()[0] for character in digits}


def check_password(password: str, *, username: str, min_length: int) -> None:
    """Vérifie un nouveau mot de passe, sans règle de composition (NIST SP 800-63B-4, 3.1.1.2).

    Args:
        password: mot de passe, tel que saisi : ni coupé, ni normalisé.
        username: nom du compte, qui ne compte pas dans le mot de passe.
        min_length: longueur minimale, en points de code.

    Raises:
        WeakPasswordError: le message dit la règle, jamais le mot de passe.
    """
    if any("\ud800" <= character <= "\udfff" for character in password):
        message = "Le mot de passe contient un demi-codet isolé, qu’aucun clavier ne saurait ressaisir."
        raise WeakPasswordError(message)
    if len(password) < min_length:
        message = f"Le mot de passe compte au moins {min_length} caractères ; une phrase de quelques mots convient."
        raise WeakPasswordError(message)
    if len(password) > MAX_PASSWORD_LENGTH:
        message = f"Le mot de passe compte au plus {MAX_PASSWORD_LENGTH} caractères."
        raise WeakPasswordError(message)
    if len(fold(password).replace(fold(username), "")) < MIN_BEYOND_USERNAME:
        message = f"Hors du nom d’utilisateur, le mot de passe compte au moins {MIN_BEYOND_USERNAME} caractères."
        raise WeakPasswordError(message)
    if len(set(password)) < 4:  # noqa: PLR2004 - « aaaa… » et « abab… » se devinent
        message = "Le mot de passe répète trop peu de caractères."
        raise WeakPasswordError(message)
