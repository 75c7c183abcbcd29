{#- performance_metrics for windows of these widths, s. -#}
{% macro performance_windows(widths) %}
with timed as (

    select
        event_date,
        arrayJoin({{ headrace.window_widths(widths) }}) as window_seconds,
        {{ headrace.window_start('window_time', 'window_seconds') }} as window_start,
        coalesce(page, '') as page,
        channel,
        assumeNotNull(duration_ms) as took_ms
    from {{ ref('events_history') }}
    where {{ headrace.in_rebuilt_days('event_date') }}
        and duration_ms is not null

),

summarised as (

    select
        event_date,
        window_start,
        window_seconds,
        page,
        channel,
        count() as events,
        quantilesExactInclusive(0.5, 0.75, 0.95, 0.99)(took_ms) as quantiles,
        max(took_ms) as max_ms,
        countIf(took_ms > {{ headrace.setting('slow_ms') }}) as slow_events
    from timed
    group by event_date, window_start, window_seconds, page, channel

)

{{ headrace.performance_columns('summarised') }}
{% endmacro %}

{#- The mart's columns from the quantiles, maximum and counts of a window. -#}
{% macro performance_columns(summarised) %}
select
    event_date,
    window_start,
    window_seconds,
    page,
    channel,
    events,
    quantiles[1] as p50_ms,
    quantiles[2] as p75_ms,
    quantiles[3] as p95_ms,
    quantiles[4] as p99_ms,
    max_ms,
    toFloat64({{ headrace.setting('slow_ms') }}) as slow_ms,
    slow_events,
    slow_events / events as slow_share
from {{ summarised }}
{% endmacro %}
