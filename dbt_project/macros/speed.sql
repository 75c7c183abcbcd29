{#- Rows of a raw table that the speed layer folds: a load of history is the batch layer's alone. -#}
{% macro recent(further=0) -%}
  {{ headrace.window_time() }} >= toStartOfDay(now('UTC')) - toIntervalDay({{ headrace.setting('speed_days') | int + further }})
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
