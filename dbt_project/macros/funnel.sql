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
