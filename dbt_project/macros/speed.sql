{#- Rows of a raw table that the speed layer folds: a load of history is the batch layer's alone. -#}
{% macro recent(further=0) -%}
  {{ headrace.window_time() }} >= toStartOfDay(now('UTC')) - toIntervalDay({{ headrace.setting('speed_days') | int + further }})
{%- endmacro %}

{#- How many days around its own a key counts once in the speed layer: repeat_days, at most speed_repeat_days. -#}
{% macro live_repeat_days() -%}
  {{ [headrace.setting('repeat_days') | int, headrace.setting('speed_repeat_days') | int] | min }}
{%- endmacro %}

{#-
  The keys of a raw table that repeats of what the speed layer folds may have: their hashes, days and when they landed.
  Ordered by hash, in granules of a thousand rows, so that the keys of an insert are looked up and not searched for.
-#}
{% macro speed_keys(stream, day) %}
{#- sessions are folded 2 * lookaround_days further back than windows -#}
{%- set reach = 2 * headrace.setting('lookaround_days') | int + headrace.live_repeat_days() | int -%}
{{
    config(
        materialized='materialized_view',
        tags=[stream, 'speed'],
        engine='MergeTree',
        partition_by='toMonday(window_date)',
        order_by=['key_hash'],
        ttl='window_date + toIntervalDay(' ~ (headrace.setting('speed_days') | int + reach + 1) ~ ')',
        settings={
            headrace.deduplication_window(): 10000,
            'index_granularity': 1024,
            'min_compress_block_size': 8192,
            'ttl_only_drop_parts': 1,
        },
    )
}}

select
    {{ headrace.window_date('landed.' ~ day) }} as window_date,
    _key_hash as key_hash,
    landed.{{ day }} as occurred_date,
    cast(
        {{ headrace.landing() }},
        'Tuple(DateTime64(6, \'UTC\'), String, UInt8, Int64, UInt8, String, Int32)'
    ) as landing
from {{ headrace.raw_inserts(stream) }} as landed
where {{ headrace.recent(reach) }}
{%- if not headrace.live_repeat_days() | int %}
    and false
{%- endif %}
{% endmacro %}

{#-
  A join for a materialized view over `landed`, rows of a raw table: finds the rows with the same key that landed by now.
  In an insert, ClickHouse has its rows stand for the raw table, also in subqueries; those of before it are in `keys`. Its
  own may or may not be there yet, and are left out there: so what is joined is empty, unless something was sent again.
  Nothing is looked up where live_repeat_days is 0.
-#}
{% macro seen_before(stream, day, keys, further=0) %}
{%- if headrace.live_repeat_days() | int %}
{%- set raw = headrace.raw_inserts(stream) -%}
left any join (
    select key_hash, groupArray((day, landing)) as days
    from (
        select key_hash, occurred_date as day, landing
        from {{ keys }}
        where key_hash in (select _key_hash from {{ raw }} where {{ headrace.recent(further) }})
            and cityHash64(landing) not in (
                select cityHash64({{ headrace.landing() }}) from {{ raw }} where {{ headrace.recent(further) }}
            )
        union all
        select _key_hash as key_hash, {{ day }} as day, {{ headrace.landing() }} as landing
        from {{ raw }}
        where {{ headrace.recent(further) }}
            and _key_hash in (
                select _key_hash from {{ raw }}
                where {{ headrace.recent(further) }}
                group by _key_hash
                having count() > 1
            )
    )
    group by key_hash
    settings max_bytes_before_external_group_by = {{ 256 * 1024 * 1024 }}
) as seen
    on landed._key_hash = seen.key_hash
{%- endif %}
{%- endmacro %}

{#- Condition on `landed`: no row that is seen_before landed before it for a day within live_repeat_days. -#}
{% macro is_first(day) -%}
{%- if headrace.live_repeat_days() | int -%}
(
        empty(seen.days)
        or not arrayExists(
            one -> abs(one.1 - landed.{{ day }}) <= {{ headrace.live_repeat_days() }}
                and one.2 < {{ headrace.landing() }},
            seen.days
        )
    )
{%- else -%}
true
{%- endif -%}
{%- endmacro %}

{#-
  The watermark of every day that was built, as far back as the speed layer reaches: the time at which its last build
  began to read, less lateness_seconds. It is kept by day, since days are rebuilt apart from each other.
-#}
{% macro watermarks(raw_table) %}
    select
        rebuilt as day,
        max(began_at) - toIntervalSecond({{ headrace.setting('lateness_seconds') | int }}) as complete_until
    from {{ api.Relation.create(schema=env_var('HEADRACE_RAW_DATABASE', 'raw'), identifier='_refreshes') }}
    array join days as rebuilt
    where table = '{{ raw_table }}'
        and rebuilt >= toDate(now('UTC')) - {{ headrace.setting('speed_days') | int }}
    group by day
{% endmacro %}

{#-
  Batch up to its watermark, speed after it: the columns of `mart`.

  Windows that had ended by the watermark of their day are answered from the batch layer, the others from the speed
  layer; days before the speed layer's reach from the batch layer alone. What lands later still than lateness_seconds is
  in the answer as soon as its day is rebuilt.
-#}
{% macro batch_then_speed(mart, speed, raw_table, day) %}
{#- a value and no join: so each layer is asked for its own windows alone, and states of the others are not merged -#}
{%- set answered_by_batch -%}
    {{ day }} < toDate(now('UTC')) - {{ headrace.setting('speed_days') | int }}
    or window_start + toIntervalSecond(window_seconds) <= (
        select mapFromArrays(groupArray(watermarks.day), groupArray(watermarks.complete_until))
        from watermarks
    )[{{ day }}]
{%- endset -%}
with watermarks as (

    {{ headrace.watermarks(raw_table) }}

)

select *
from {{ mart }}
where {{ answered_by_batch }}
union all
select *
from {{ speed }}
where not ({{ answered_by_batch }})
{% endmacro %}
