"""The page of one session: a header with what it does now, and a tab for each kind of thing there is about it.

A tab is one module with a blueprint, which app/web/application.py registers, a template that extends `layout`, and a
line in `page.TABS`.
"""
