{{
    config(
        materialized='materialized_view',
        tags=['metrics', 'speed'],
        engine='AggregatingMergeTree',
        partition_by='metric_date',
        order_by=['metric_name', 'kind', 'unit', 'source', 'toJSONString(dimensions)', 'window_start'],
        ttl='metric_date + toIntervalDay(' ~ (headrace.setting('speed_days') | int + 1) ~ ')',
        settings={deduplication_window(): 10000},
    )
}}

select
    {{ window_date('landed.metric_date') }} as metric_date,
    {{ window_start(window_time(), headrace.setting('window_seconds') | int) }} as window_start,
    name as metric_name,
    kind,
    coalesce(unit, '') as unit,
    source,
    mapSort(dimensions) as dimensions,
    groupArrayState(({{ window_time() }}, metric_id, value)) as arrived
from {{ raw_inserts('metrics') }} as landed
{{ seen_before('metrics', 'metric_date', ref('speed_metric_keys')) }}
where {{ recent() }}
    and {{ is_first('metric_date') }}
group by metric_date, window_start, metric_name, kind, unit, source, dimensions
