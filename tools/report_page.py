"""The page of `tools.report`: its words' order and its looks. It loads nothing and runs nothing."""
# ruff: noqa: E501

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ name }} · {{ headline }}</title>
<style>
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2733; --soft: #56616d; --line: #d9dee3;
        --card: #f5f7f9; --accent: #23527c; --loud: #a4161a; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e8ebee; --soft: #a9b3bd; --line: #38424c; --card: #1d232a;
          --accent: #8ec1ee; --loud: #ff8d8f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.soft, figcaption { color: var(--soft); }
.loud { color: var(--loud); font-weight: 700; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem; padding: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.facts dt { color: var(--soft); font-size: .9rem; }
.facts dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.facts dd small { display: block; font-size: .875rem; font-weight: 400; color: var(--soft); }
figure { margin: 1rem 0; }
figcaption { margin-top: .5rem; max-width: 40rem; }
img { display: block; max-width: min(100%, 40rem); height: auto; background: #ffffff; border-radius: .5rem; padding: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, .words :is(th, td):last-child { text-align: left; }
tbody th { font-weight: 400; }
@media (max-width: 30rem) {
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  table { font-size: .875rem; }
  th, td { padding-right: .5rem; white-space: normal; }
}
summary { cursor: pointer; color: var(--accent); padding: .3rem 0; }
@media print { figure, tr, .facts div { break-inside: avoid; } h2 { break-after: avoid; } }
</style>
</head>
<body>
<header>
<p class="soft">Report of the run {{ name }}</p>
<h1>{{ headline }}</h1>
{% for line in warnings %}<p class="loud">{{ line }}</p>
{% endfor %}
</header>
<main>
<dl class="facts">
{% for fact in facts %}<div><dt>{{ fact.what }}</dt><dd>{{ fact.value }}<small>{{ fact.more }}</small></dd></div>
{% endfor %}</dl>
{% macro table(frame, title, words) %}<div class="wide{{ ' words' if words }}" role="region" tabindex="0" aria-label="{{ title }}"><table>
<thead><tr>{% for cell in frame[0] %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in frame[1:] %}<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endmacro %}
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% for line in section.lines %}<p>{{ line }}</p>
{% endfor %}
{% if section.rows %}{{ table(section.rows, section.title, section.words) }}{% endif %}
{% if section.image %}<figure><img src="data:image/png;base64,{{ section.image }}" alt="{{ section.alt }}">
<figcaption>{{ section.caption }}</figcaption></figure>{% endif %}
{% if section.after %}<p>{{ section.after }}</p>{% endif %}
{% for more in section.folded %}<details><summary>{{ more.title }}</summary>{{ table(more.rows, more.title, True) }}</details>
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
