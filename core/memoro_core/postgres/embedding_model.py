"""Which model the stored vectors come from, and the index that makes them quick to search."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from memoro_core.diagnosis.requirements import MAX_INDEXED_DIMENSIONS
from memoro_core.errors import ProviderError
from memoro_core.llm.model import EmbeddingModel
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries

if TYPE_CHECKING:
    import asyncpg

_SQL: Final = load_queries("embedding_model")


async def check_embedding_model(database: Database, model: EmbeddingModel) -> None:
    """To be called at start. Raises ProviderError, naming both models, when the stored vectors are another model's."""
    async with database.system_tx() as connection:
        _refuse_other(await connection.fetchval(_SQL["get_embedding_model"]), model)


async def claim_embedding_model_in(connection: Connection, model: EmbeddingModel, *, now: datetime) -> None:
    """Makes the model the deployment's if it has none yet. Raises ProviderError when it has another one."""
    stored = await connection.fetchval(_SQL["get_embedding_model"])
    if stored is None:
        await connection.execute(_SQL["set_embedding_model"], model.key, model.dimensions, now)
        stored = await connection.fetchval(_SQL["get_embedding_model"])
    _refuse_other(stored, model)


async def ensure_vector_index(owner: asyncpg.Connection[asyncpg.Record], dimensions: int) -> bool:
    """Builds the index for vectors of this many dimensions unless it is there; whether it was built.

    For `memoro migrate`, with a connection of the schema's owner that is in no transaction: writers are not held up.
    Does nothing above 2,000 dimensions, which pgvector can't index.
    """
    if not 1 <= dimensions <= MAX_INDEXED_DIMENSIONS:
        return False
    valid = await owner.fetchval(for_dimensions(_SQL["vector_index_is_valid"], dimensions))
    if valid:
        return False
    if valid is False:  # an earlier build was interrupted
        await owner.execute(for_dimensions(_SQL["drop_vector_index"], dimensions))
    await owner.execute(for_dimensions(_SQL["create_vector_index"], dimensions))
    return True


def for_dimensions(query: str, dimensions: int) -> str:
    """A statement with the number of dimensions in it, where SQL takes no parameter."""
    return query.replace("{dimensions}", str(int(dimensions)))


def _refuse_other(stored: str | None, model: EmbeddingModel) -> None:
    if stored is not None and stored != model.key:
        raise ProviderError(
            f"the stored vectors are of the embedding model {stored}, but {model.key} is configured; "
            "set the old one again, or embed every memory anew",
            retryable=False,
            metadata={"stored": stored, "configured": model.key},
        )
