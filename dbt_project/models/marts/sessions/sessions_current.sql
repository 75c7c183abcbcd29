{# `final` as a setting, because a unit test has no table to say it of #}
{{ config(materialized='view', query_settings={'final': 1}) }}

select *
from {{ ref('sessions_latest') }}
