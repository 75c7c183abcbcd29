{#- SQL string literals, comma separated. -#}
{% macro quoted_list(texts) %}
  {%- for text in texts -%}
    '{{ text | replace("\\", "\\\\") | replace("'", "\\'") }}'{{ ', ' if not loop.last }}
  {%- endfor -%}
{% endmacro %}

{#- Array(UInt8) of the funnel steps, counted from 1, that an event type takes. -#}
{% macro funnel_steps_of(event_type) %}
  {%- set steps = headrace.setting('funnel_steps') -%}
  arrayFilter(
            step -> step > 0,
            [
                {%- for step in steps %}
                if({{ event_type }} in ({{ headrace.quoted_list(step.event_types) }}), toUInt8({{ loop.index }}), toUInt8(0)){{ ',' if not loop.last }}
                {%- endfor %}
            ]
        )
{%- endmacro %}

{#- conversion_funnel of these rows of sessions. -#}
{% macro funnel_of(sessions) %}
{%- set steps = headrace.setting('funnel_steps') %}
with counted as (

    select
        session_date,
        channel,
        arrayJoin(range(1, {{ steps | length + 1 }})) as step,
        countIf(funnel_step >= step) as sessions,
        countIf(funnel_step >= step - 1) as sessions_before,
        count() as all_sessions
    from {{ sessions }}
    group by session_date, channel, step

)

select
    session_date,
    channel,
    toUInt8(step) as step,
    [{{ headrace.quoted_list(steps | map(attribute='name')) }}][step] as step_name,
    sessions,
    sessions_before,
    all_sessions,
    if(sessions_before > 0, sessions / sessions_before, null) as share_of_previous_step,
    sessions / all_sessions as share_of_sessions
from counted
{% endmacro %}
