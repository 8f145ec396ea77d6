"""The templates of instances, written by strangers for LXD's engine, pongo2 (Django's syntax).

An interpreter of our own for what such templates are made of. It knows text, numbers, lists, maps and one
function; there are no objects to climb through, no files to include, no code to reach. Each step and each
byte is counted. It runs in a process of its own that can only read its input and write its output.
"""
