{{ config(materialized='view') }}
{%- set late_after = headrace.setting('lateness_seconds') | int %}
{%- set streams = [('events', 'event_date'), ('metrics', 'metric_date')] %}

with lagging as (

    {%- for stream, day in streams if headrace.has_stream(stream) %}
    select
        '{{ stream }}' as stream,
        {{ day }} as day,
        _ingested_at,
        _ingested_at > occurred_at + toIntervalSecond({{ late_after }}) as is_late,
        greatest(dateDiff('millisecond', occurred_at, _ingested_at), 0) / 1000 as lag_seconds
    from {{ ref('stg_' ~ stream) }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}

),

summarised as (

    select
        stream,
        day,
        count() as landed,
        countIf(is_late) as late,
        quantiles(0.5, 0.99)(lag_seconds) as lags,
        max(lag_seconds) as longest,
        max(_ingested_at) as newest
    from lagging
    group by stream, day

)

select
    stream,
    day,
    landed,
    late,
    lags[1] as lateness_p50_seconds,
    lags[2] as lateness_p99_seconds,
    longest as lateness_max_seconds,
    newest as last_landed_at
from summarised
