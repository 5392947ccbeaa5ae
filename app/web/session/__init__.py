"""The page of one session: a header with what it does now, and a tab for each kind of thing there is about it.

A tab is one module with a blueprint, a template that extends `layout`, and a line in `page.TABS` and in
`SESSION_MODULES` of app/web/application.py.
"""
