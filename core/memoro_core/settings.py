"""Every setting, read once at start from the environment: `MEMORO_` and the field's name in capitals."""

from __future__ import annotations

from collections.abc import Sequence
from email.errors import HeaderParseError
from email.headerregistry import Address
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PostgresDsn,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import from_json
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from memoro_core.alerts.model import Severity
from memoro_core.jobs.cron import Cron, time_zone_of
from memoro_core.jobs.model import JobKind
from memoro_core.redis_address import parse_redis_url

LOCAL_EMBEDDING_DIMENSIONS: Final = 256
"""How long the vectors of the local provider are."""


def _redis_url(url: str) -> str:
    parse_redis_url(url)
    return url


def _email_address(text: str) -> str:
    try:
        address = Address(addr_spec=text)
    except (HeaderParseError, ValueError):
        address = Address()
    if not (address.username and address.domain) or not text.isprintable():
        raise ValueError("must be an address like ops@example.com, without a name")
    return text


def _listed(value: object) -> object:
    """The parts of a text with commas, or of a JSON array."""
    if not isinstance(value, str):
        return value
    return from_json(value) if value.startswith("[") else [part.strip() for part in value.split(",") if part.strip()]


def _key_set_place(place: str) -> str:
    """Plain HTTP could give anyone's keys for the issuer's."""
    scheme, separator, _ = place.partition("://")
    if not separator:
        if not place:
            raise ValueError("must be an https URL or the path of a file")
        return place
    url = urlsplit(place)
    if url.username or url.password:
        raise ValueError("must be without user and password")
    if not url.hostname or (scheme.lower(), _is_this_machine(url.hostname)) not in _SAFE_PLACES:
        raise ValueError("must be an https URL, http for this machine only, or the path of a file")
    return scheme.lower() + separator + place[len(scheme) + len(separator) :]


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_SAFE_PLACES: Final = frozenset({("https", True), ("https", False), ("http", True)})
TokenAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
EmailAddress = Annotated[str, AfterValidator(_email_address)]


class Settings(BaseSettings):
    """The settings of one process. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="MEMORO_", frozen=True, extra="ignore", populate_by_name=True)

    database_url: PostgresDsn = PostgresDsn("postgresql://memoro_service@127.0.0.1:5432/memoro")
    """Where server and worker connect, as a role that owns nothing."""
    migration_database_url: PostgresDsn | None = None
    """Where `memoro migrate` connects, as the owner of the schema; straight to PostgreSQL, not through a pooler."""
    redis_url: Annotated[str, AfterValidator(_redis_url)] = "redis://127.0.0.1:6379/0"
    """A server, a cluster (`redis+cluster://`) or what Sentinel looks after (`redis+sentinel://`)."""
    database_pool_size: int = Field(default=10, ge=2, le=500)
    database_statement_cache: int = Field(default=256, ge=0, le=10_000)
    """Prepared statements kept per connection; 0 behind a pooler that cannot keep them."""
    database_timeout: float = Field(default=10.0, gt=0)
    """The longest a statement or the wait for a connection may take."""

    grpc_host: str = "127.0.0.1"
    grpc_port: int = Field(default=50051, ge=0, le=65535)
    ops_host: str = "127.0.0.1"
    server_ops_port: int = Field(default=8081, ge=0, le=65535)
    worker_ops_port: int = Field(default=8082, ge=0, le=65535)
    processes: int = Field(default=1, ge=1, le=64)
    """Server processes sharing the port, each with an event loop of its own."""
    reflection: bool = True
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_ca_file: Path | None = None
    """With it, a client must show a certificate that this authority signed."""
    drain_notice: float = Field(default=1.0, ge=0)
    """How long after SIGTERM calls are still taken, while the health checks say NOT_SERVING."""
    drain_grace: float = Field(default=10.0, ge=0)
    """How long calls under way may go on after that."""
    max_message_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    max_connection_age: float = Field(default=1800.0, gt=0)
    max_connection_idle: float = Field(default=300.0, ge=1)
    """How long a connection without a call is kept."""
    max_connection_streams: int = Field(default=4096, ge=1, le=100_000)
    """Calls at once on one connection."""
    handshake_timeout: float = Field(default=20.0, ge=1)
    """How long a client may take to set up its connection, TLS included."""
    keepalive_min_interval: float = Field(default=10.0, gt=0)
    """The shortest interval at which a client may ping."""
    watch_heartbeat: float = Field(default=15.0, gt=0)
    auth_cache_ttl: float = Field(default=1.0, gt=0, le=1.0)
    """How long a key's standing and its tenant's limits are remembered while no change to them is heard."""
    jwt_issuer: str | None = Field(default=None, min_length=1)
    """Whose JSON Web Tokens are taken beside API keys: their claim `iss`. Needs the next two."""
    jwt_audience: str | None = Field(default=None, min_length=1)
    """What their claim `aud` must name."""
    jwt_jwks: Annotated[str, AfterValidator(_key_set_place)] | None = None
    """Where the issuer's public keys are: an https URL, http on this machine only, or the path of a file."""
    jwt_tenant_claim: str = Field(default="memoro_tenant", min_length=1)
    """The claim that names the tenant, by its id or its name."""
    jwt_scope_claim: str = Field(default="scope", min_length=1)
    """The claim with the scopes: a text with spaces between, or a list."""
    jwt_algorithms: Annotated[tuple[TokenAlgorithm, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=("RS256", "ES256", "EdDSA"), min_length=1
    )
    """The algorithms that tokens may be signed with."""

    limits: bool = True
    """Whether callers are limited in how much they may do at once and in a day."""
    limit_timeout: float = Field(default=0.02, gt=0, le=1.0)
    """How long a call may wait for Redis to decide; later this process decides by itself."""

    long_conversation: int = Field(default=20, ge=1)
    """A conversation of more messages has a high priority, unless its caller says otherwise."""
    short_text: int = Field(default=40, ge=0)
    """A text of fewer characters has a low priority, unless its caller says otherwise."""

    worker_concurrency: int = Field(default=16, ge=1, le=1000)
    worker_prefetch: int = Field(default=0, ge=0, le=100)
    """How many jobs a worker hears of ahead of free slots; what it holds back, no other worker runs."""
    worker_processes: int = Field(default=1, ge=1, le=64)
    job_timeout: float = Field(default=120.0, gt=0)
    """How long an attempt may take."""
    job_timeouts: dict[JobKind, Annotated[float, Field(gt=0)]] = {}
    """The same for kinds of jobs that need another limit, as JSON: {"memory.enrich": 60}."""
    job_max_attempts: int = Field(default=5, ge=1, le=100)
    job_retry_base: float = Field(default=2.0, gt=0)
    job_retry_max: float = Field(default=300.0, gt=0)
    job_lease: float = Field(default=6.0, gt=0)
    job_heartbeat: float = Field(default=2.0, gt=0)
    scheduler_interval: float = Field(default=0.5, gt=0)
    """How often the scheduler looks for expired leases and lost hints."""
    scheduler_poll: float = Field(default=0.1, gt=0)
    """How often the scheduler looks for jobs whose turn it is, while there are none."""
    hint_timeout: float = Field(default=5.0, gt=0)
    """A queued job whose hint is older than this is hinted again."""

    time_zone: str = "UTC"
    """The IANA name of the zone that schedules are read in."""
    retention_schedule: str = "*/10 * * * *"
    """When what is old is deleted: a cron expression."""
    kept_succeeded: float = Field(default=7 * 86_400.0, ge=3600)
    """How long jobs are kept that succeeded or were cancelled, where their tier does not say."""
    kept_failed: float = Field(default=30 * 86_400.0, ge=3600)
    """How long failed jobs are kept, where their tier does not say."""

    audit_retention: float = Field(default=400 * 86_400.0, ge=86_400)
    """How long the audit log is kept."""

    margin_basis_points: int = Field(default=5_000, ge=0, le=100_000)
    """What is added to what providers charge, in hundredths of a percent; a job keeps the one it was accepted with."""
    price_refresh: float = Field(default=1.0, gt=0, le=2.0)
    """How often a process looks for new prices."""

    secret_key: SecretStr | None = Field(default=None, min_length=32)
    """What seals webhook secrets in the database; the same for all servers and workers. None: they are not sealed."""
    webhook_allow_private: bool = False
    """Whether webhooks may go to private addresses, and over plain HTTP: for tests and closed networks."""
    webhook_interval: float = Field(default=1.0, gt=0)
    """How often a worker looks for deliveries that are due."""
    webhook_retention: float = Field(default=7 * 86_400.0, ge=86_400)
    """How long deliveries that ended are kept."""

    alert_channels: Annotated[tuple[Literal["email", "slack"], ...], NoDecode, BeforeValidator(_listed)] = ()
    """Where alerts go besides the log, in this order: email,slack."""
    alert_delivery: Literal["all", "fallback"] = "all"
    """Whether each channel gets an alert, or the first that takes it."""
    alert_interval: float = Field(default=1.0, gt=0)
    """How often a worker looks for alerts to send."""
    alert_timeout: float = Field(default=10.0, ge=1, le=60)
    """How long a channel may take for an alert."""
    alert_retention: float = Field(default=30 * 86_400.0, ge=2 * 86_400)
    """How long alerts are kept that were delivered or given up."""
    alert_email_severity: Severity = Severity.INFO
    """The least urgent alerts that are sent by email."""
    alert_email_from: EmailAddress | None = None
    alert_email_to: Annotated[tuple[EmailAddress, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), max_length=50
    )
    """One or more, with commas between."""
    alert_smtp_host: str = ""
    alert_smtp_port: int | None = Field(default=None, ge=1, le=65535)
    """None: 587 with STARTTLS, 465 with TLS, 25 without."""
    alert_smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    alert_smtp_user: str = ""
    alert_smtp_password: SecretStr | None = None
    alert_slack_severity: Severity = Severity.INFO
    """The least urgent alerts that go to Slack."""
    alert_slack_webhook_url: SecretStr | None = None
    alert_slack_token: SecretStr | None = None
    """A bot's, which posts to `alert_slack_channel`; instead of a webhook."""
    alert_slack_channel: str = ""
    alert_slack_api_url: str = "https://slack.com/api/"
    alert_queue_waiting: int = Field(default=100, ge=0)
    """When more jobs of a queue wait, an alert says so, once a day."""
    alert_queue_failed: int = Field(default=10, ge=0)
    """When more jobs of a queue have failed on a day, an alert says so."""

    embedding_provider: Literal["local", "openai"] = "local"
    extraction_provider: Literal["local", "openai", "none"] = "local"
    openai_api_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("OPENAI_API_KEY", "MEMORO_OPENAI_API_KEY", "openai_api_key")
    )
    openai_base_url: str | None = None
    """Any endpoint that speaks the OpenAI protocol; None is the provider's own."""
    openai_embedding_model: str = "text-embedding-3-small"
    openai_embedding_dimensions: int = Field(default=1536, ge=1, le=16_000)
    openai_extraction_model: str = "gpt-4o-mini"
    openai_timeout: float = Field(default=30.0, gt=0)
    openai_max_concurrency: int = Field(default=16, ge=1)

    exact_search_limit: int = Field(default=10_000, ge=0)
    """Up to so many memories of a user, every vector is compared; above it the approximate index is used."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("MEMORO_TLS_CERT_FILE and MEMORO_TLS_KEY_FILE go together: set both or neither")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("MEMORO_TLS_CLIENT_CA_FILE needs MEMORO_TLS_CERT_FILE and MEMORO_TLS_KEY_FILE")
        if len({self.jwt_issuer is None, self.jwt_audience is None, self.jwt_jwks is None}) > 1:
            raise ValueError("MEMORO_JWT_ISSUER, MEMORO_JWT_AUDIENCE and MEMORO_JWT_JWKS go together: set all or none")
        if self.job_heartbeat * 2 >= self.job_lease:
            raise ValueError("MEMORO_JOB_LEASE must be more than twice MEMORO_JOB_HEARTBEAT")
        if "openai" in (self.embedding_provider, self.extraction_provider) and self.openai_api_key is None:
            raise ValueError("the openai provider needs OPENAI_API_KEY")
        self._check_alerts()
        return self

    def _check_alerts(self) -> None:
        if len(set(self.alert_channels)) < len(self.alert_channels):
            raise ValueError("MEMORO_ALERT_CHANNELS names a channel twice")
        if (self.alert_smtp_password is None) != (self.alert_smtp_user == ""):
            raise ValueError("MEMORO_ALERT_SMTP_USER and MEMORO_ALERT_SMTP_PASSWORD go together: set both or neither")
        if "email" in self.alert_channels and not (
            self.alert_smtp_host and self.alert_email_from and self.alert_email_to
        ):
            raise ValueError(
                "the alert channel email needs MEMORO_ALERT_SMTP_HOST, MEMORO_ALERT_EMAIL_FROM"
                " and MEMORO_ALERT_EMAIL_TO"
            )
        if "slack" in self.alert_channels and (self.alert_slack_webhook_url is None) == (
            self.alert_slack_token is None or not self.alert_slack_channel
        ):
            raise ValueError(
                "the alert channel slack needs MEMORO_ALERT_SLACK_WEBHOOK_URL,"
                " or MEMORO_ALERT_SLACK_TOKEN and MEMORO_ALERT_SLACK_CHANNEL"
            )

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        time_zone_of(name)
        return name

    @field_validator("retention_schedule")
    @classmethod
    def _check_schedule(cls, expression: str) -> str:
        Cron(expression, time_zone_of("UTC"))
        return expression

    @property
    def owner_database_url(self) -> str:
        """Where migrations run: the owner's URL, or the common one when none is set."""
        return str(self.migration_database_url or self.database_url)


def problems_of(error: ValidationError) -> Sequence[str]:
    """What is wrong with the settings, a line each, without their values: one of them may hold a password."""
    return [
        f"setting {'.'.join(map(str, problem['loc'])) or 'combination'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    ]
