"""Settings of the backing services: Kafka, SQS, the lake, the archive and ClickHouse."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, Field, SecretStr, field_validator


class ServiceSettings(BaseModel):
    """Addresses, credentials and names of the backing services."""

    kafka_bootstrap_servers: str = Field(
        "",
        description="host:port, comma separated; default: the stack that runs in HEADRACE_HOME",
    )
    kafka_security: dict[str, Any] = Field(
        default_factory=dict,
        description="kafka-python's security_protocol, sasl_* and ssl_* options as JSON",
        repr=False,
    )
    kafka_group: str = Field(
        "headrace", description="consumer group whose offsets show the lag to Kafka's own tools"
    )

    schema_registry_url: str = Field(
        "",
        description="registry of the schemas of Kafka messages; several of one cluster are comma separated",
    )
    schema_registry_user: str = ""
    schema_registry_password: SecretStr = SecretStr("")
    schema_registry_token: SecretStr = Field(
        SecretStr(""), description="bearer token, instead of user and password"
    )
    schema_registry_ca_file: str = Field("", description="certificates to trust; default: the usual ones")

    sqs_endpoint_url: str | None = Field(None, description="endpoint of an SQS emulator; default: AWS")
    sqs_region: str = Field("us-east-1")
    aws_access_key_id: str | None = Field(
        None,
        validation_alias=AliasChoices("aws_access_key_id"),
        description="read from AWS_ACCESS_KEY_ID; default: the AWS credential chain",
    )
    aws_secret_access_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("aws_secret_access_key")
    )
    sqs_receivers: int = Field(8, ge=1, le=64, description="parallel receivers per queue")

    lake_uri: str = Field("", description="folder or s3:// URI; default <home>/lake")
    lake_storage_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="delta-rs' storage options as JSON"
    )
    lake_sync: bool = Field(
        True,
        description="false: acknowledge before a lake on a local disk is synced; a power cut then loses rows",
    )

    archive: str = Field("", description="folder or s3:// URI of the files to land; default <home>/archive")
    archive_storage_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="storage options of the archive; default: the lake's"
    )
    archive_quiet_seconds: float = Field(
        2.0, ge=0, le=3_600, description="land a file once it has not changed for this long"
    )

    clickhouse_host: str = Field(
        "127.0.0.1",
        description="default, if the port is not set either: the stack that runs in HEADRACE_HOME",
    )
    clickhouse_port: int = Field(8123, ge=1, le=65_535)
    clickhouse_user: str = "headrace"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_secure: bool = False
    warehouse_cluster: str = Field(
        "",
        pattern=r"^([A-Za-z_]\w{0,62})?$",
        description="ClickHouse cluster that holds the tables, as in its remote_servers; empty for one server",
    )
    raw_database: str = Field("raw", pattern=r"^[A-Za-z_]\w{0,62}$", description="database of the raw tables")
    dbt_schema: str = Field("analytics", pattern=r"^[A-Za-z_]\w{0,62}$", description="database of the marts")
    raw_ttl_days: int = Field(0, ge=0, description="days until raw rows expire; 0: never")

    @field_validator("archive")
    @classmethod
    def _folder_or_s3(cls, value: str) -> str:
        if "://" in value and not value.startswith("s3://"):
            raise ValueError("it must be a folder or begin with s3://")
        return value
