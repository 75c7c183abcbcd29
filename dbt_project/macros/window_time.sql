{#- Whether the models' time axis is event time; the alternative is processing time. -#}
{% macro in_event_time() %}
  {%- set axis = headrace.setting('window_time') -%}
  {%- if axis not in ('event', 'processing') -%}
    {{ exceptions.raise_compiler_error(
      "var 'window_time' is '" ~ axis ~ "'; expected event or processing; it is set in dbt_project.yml"
    ) }}
  {%- endif -%}
  {{ return(axis == 'event') }}
{% endmacro %}

{#- The time that places a row in windows, sessions and days: when it happened, or when Headrace read it. -#}
{% macro window_time() %}
  {{- 'occurred_at' if headrace.in_event_time() else '_ingested_at' -}}
{% endmacro %}

{#- UTC day of window_time; in event time the partition column itself, so that a filter reads only its days. -#}
{% macro window_date(partition) %}
  {{- partition if headrace.in_event_time() else 'toDate(_ingested_at)' -}}
{% endmacro %}

{#- A page without query string and fragment; where there is none, the screen. -#}
{% macro page() %}
  coalesce(nullIf(cutQueryStringAndFragment(page_url), ''), screen_name)
{%- endmacro %}
