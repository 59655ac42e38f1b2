"""Who looks at the deployment, and what the settings tell of it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cryptography.x509 import load_pem_x509_certificate

from memoro_core.container.ground import Ground
from memoro_core.diagnosis.model import Setup
from memoro_core.diagnosis.service import DiagnosisService
from memoro_core.postgres.diagnosis_store import PostgresInspector
from memoro_core.postgres.migrate import known_versions
from memoro_core.redis.inspector import RedisServerInspector
from memoro_core.redis_address import parse_redis_url
from memoro_core.settings import Settings

_BESIDE_THE_POOL: Final = 3
"""Connections of a process that requests can't use up: for signs of life, leases, and the lead or the news."""


def open_diagnosis(ground: Ground) -> DiagnosisService:
    """The service; nothing is opened before it is asked."""
    return DiagnosisService(
        PostgresInspector(ground.database), RedisServerInspector(ground.redis), _setup_of(ground), ground.clock
    )


def _setup_of(ground: Ground) -> Setup:
    settings, model = ground.settings, ground.providers.embedding.model
    redis = parse_redis_url(settings.redis_url)
    return Setup(
        host=settings.grpc_host,
        certificate_ends=_certificate_ends(settings),
        reflection=settings.reflection,
        secret_key=settings.secret_key is not None,
        webhook_allow_private=settings.webhook_allow_private,
        redis_in_the_open=() if redis.tls else [host for host, _ in redis.hosts],
        connections=(settings.processes + settings.worker_processes) * (settings.database_pool_size + _BESIDE_THE_POOL),
        embedding_model=model.key,
        dimensions=model.dimensions,
        migrations=known_versions(),
    )


def _certificate_ends(settings: Settings) -> datetime | None:
    """When the certificate ends that was there at start, as it is what is served; None: there is no TLS."""
    if settings.tls_cert_file is None:
        return None
    try:
        return load_pem_x509_certificate(settings.tls_cert_file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return None
