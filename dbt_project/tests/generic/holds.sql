{#-
  Every condition holds in every row of the refreshed days; one scan for all of them. Which conditions a row breaks
  is worked out for broken rows alone.
-#}
{% test holds(model, conditions, day) %}

select
    arrayFilter((condition, met) -> not met, {{ conditions | tojson | replace("'", "\\'") | replace('"', "'") }}, [
        {%- for condition in conditions %}
        ifNull(toBool({{ condition }}), false){{ ',' if not loop.last }}
        {%- endfor %}
    ]) as broken,
    *
from {{ model }}
where {{ in_rebuilt_days(day) }}
    and not (
        {%- for condition in conditions %}
        {{ 'and ' if not loop.first }}ifNull(toBool({{ condition }}), false)
        {%- endfor %}
    )

{% endtest %}
