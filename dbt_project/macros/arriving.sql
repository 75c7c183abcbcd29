{#-
  Rows of a stream that were published while this dbt command ran, or may have been: a mart that was built by then and
  a test that comes later do not read the same. Their days are touched again, and so will be built and tested again.

  Those ingested since it began, and all of the days for which a publication was recorded since (a warehouse that was
  away catches up with rows that were ingested long before).
-#}
{% macro arriving(stream, day, columns, back=0, ahead=0) %}
  {%- set began = "toDateTime64('" ~ run_started_at.strftime('%Y-%m-%d %H:%M:%S.%f') ~ "', 6, 'UTC')" -%}
  {%- set raw = env_var('HEADRACE_RAW_DATABASE', 'raw') -%}
  {%- set publications = api.Relation.create(schema=raw, identifier='_publications') -%}
  select {{ columns }}
  from {{ ref('stg_' ~ stream) }}
  where {{ in_rebuilt_days(day, back=back, ahead=ahead) }}
      and (
          _ingested_at >= {{ began }}
          or {{ day }} in (
              select arrayJoin({{ 'days' if in_event_time() else 'landed_days' }})
              from {{ publications }}
              where table = '{{ stream }}' and published_at >= {{ began }}
          )
      )
{% endmacro %}
