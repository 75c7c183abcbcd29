{#- Every condition holds in every row of the refreshed days; one scan for all of them. -#}
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
    and notEmpty(broken)

{% endtest %}
