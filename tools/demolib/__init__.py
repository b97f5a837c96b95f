"""The demonstration: `sudo tools/demo`.

    story     what is shown, step by step
    stage     the namespaces it happens in, running commands there, and removing it all
    headers   a packet caught on both sides of the translation
    mirror    a web server that tells its visitors where they come from; the outside host runs it
    kernel    a program run by a Jupyter server over its websocket; the outside host runs it
"""
