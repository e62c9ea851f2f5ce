"""Invented names: a word list for every split, and no word in two of them.

A name is a head and a tail ("Tarv" + "oria"). Heads belong to one split only, so a company, a fund or a person of the
test set was never seen in training. All of it is made up; no issuer or person of this world is meant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

COMPANY_TAILS = ("ane", "ell", "oria", "eck", "ison", "olm", "una", "esta", "ivo", "andra", "ume", "arc")
FAMILY_TAILS = ("ander", "essen", "ovic", "adal", "imore", "under", "erling", "aby")
TRADES = (
    "Foods", "Energy", "Logistics", "Textiles", "Software", "Materials", "Foundry", "Marine", "Health", "Robotics",
    "Paper", "Rail", "Optics", "Timber", "Mining", "Retail",
)  # fmt: skip
FORMS = ("Ltd", "plc", "Group", "Corp", "Holdings", "Inc")
STYLES = ("Growth", "Income", "Balanced", "Value", "Global", "Equity", "Bond", "Dividend")


@dataclass(frozen=True)
class Names:
    """The words of one split: heads of company and family names, and given names."""

    heads: tuple[str, ...]
    given: tuple[str, ...]

    @property
    def stems(self) -> tuple[str, ...]:
        """Every invented word that can stand for a company or a fund."""
        return tuple(head + tail for head in self.heads for tail in COMPANY_TAILS)

    @property
    def families(self) -> tuple[str, ...]:
        """Every invented family name."""
        return tuple(head + tail for head in self.heads for tail in FAMILY_TAILS)

    def company(self, rng: Random) -> str:
        """`Tarvoria Foods Ltd`."""
        return f"{rng.choice(self.stems)} {rng.choice(TRADES)} {rng.choice(FORMS)}"

    def fund(self, rng: Random) -> str:
        """`Tarvoria Income Fund`."""
        return f"{rng.choice(self.stems)} {rng.choice(STYLES)} Fund"

    def person(self, rng: Random) -> str:
        """`Maril Tarvander`."""
        return f"{rng.choice(self.given)} {rng.choice(self.families)}"


def _names(heads: str, given: str) -> Names:
    return Names(tuple(heads.split()), tuple(given.split()))


NAMES: Mapping[str, Names] = {
    "train": _names(
        "Tarv Belm Corb Dask Elv Fenr Garn Holv Irm Jast Kald Lorm Marb Nesk Ostr Pell Quor Rudd Selk Thal",
        "Maril Tovin Anselka Bredo Celina Dorvin Elske Fabrin",
    ),
    "validation": _names(
        "Arv Brin Cask Delv Ferm Gost Harb Jelm Kost Lund",
        "Orlin Petrisa Rasko Savina",
    ),
    "test": _names(
        "Varn Welb Yarr Zend Umbr Tresk Skald Prond Norv Morth Lisk Hesp Grell Drov",
        "Isolde Joric Kasmir Lenka Mirova Nevin",
    ),
    "corpus": _names(
        "Abr Acr Alb Ambr Bax Bolk Bronn Carm Cend Clav Cord Crenn Dalm Darr Dorn Dulv Egl Emb Erst Falk Fard Flinn "
        "Forb Fulm Gald Gimm Gorm Hald Hamm Hest Hulm Ilv Imb Jarn Jond Kelv Kirr Korb Lamb Larn Lenn Lumb Malk Mend "
        "Mirr Murn Nald Nimb Norr Olm Orv Pard Penn Pirn Polk Rald Remm Rind Rosk Sarn Semm Silv Sorb Stann Tamm Telv "
        "Tirr Torb Uld Urn Vald Vemm Virr Vosk Wald Wenn Wirr Yeld Zamm Zorv",
        "Adrik Benka Corvin Dalia Edrik Felda Gorin Hedva Ilmar Jessa Korin Lidvar Melka Nordin Olena Palvin Runa "
        "Stelan Tamsin Ulrika Vesna Wendel Yorick Zelda",
    ),
}  # fmt: skip
