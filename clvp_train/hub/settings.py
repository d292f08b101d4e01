"""What a user says of publishing."""

from dataclasses import dataclass

from clvp_train.errors import UserError
from clvp_train.hub.templates import check_template


@dataclass(frozen=True)
class HubConfig:
    """Where to publish, as what. `repo_id` and `push` decide whether anything is published.

    Raises:
        UserError: a bad setting, or a card that lacks a value.
    """

    repo_id: str | None = None  # name, or namespace/name, on the Hub; None: do not push
    push: bool = True  # False: only write the folder that would be pushed
    private: bool = True
    overwrite: bool = False  # replace what the repository holds; False: refuse one that holds something
    license: str = "unknown"  # the Hub's identifier of the licence, such as apache-2.0 or cc-by-4.0
    language: str | None = None  # of the texts, such as en
    card: str | None = None  # a Jinja template for the card; None: the one of this package

    def __post_init__(self) -> None:
        for name in ("push", "private", "overwrite"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"hub.{name}={getattr(self, name)}: set it to true or false")
        for name in ("repo_id", "license", "language", "card"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UserError(f"hub.{name}={value!r}: set it to a word")
        if self.license is None:
            raise UserError("hub.license=null: set it to the Hub's identifier of a licence, or to unknown")
        if self.card is not None:
            check_template(self.card)

    @property
    def wanted(self) -> bool:
        """Whether anything shall be written."""
        return self.repo_id is not None or not self.push
