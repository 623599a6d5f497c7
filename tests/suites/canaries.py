"""Canaries of surfaces in tests: nobody has them before a worker has opened them in the background."""

import time

from lookup_api.deadline import Deadline
from lookup_api.root.catalog import Catalog


def until_watched(catalog: Catalog) -> None:
    """Returns once those of all surfaces have their share."""
    surfaces = catalog.routes(Deadline.after(60)).surfaces
    places = [(name, one.route.canary.model) for name, one in surfaces.items() if one.route.canary]
    until = time.monotonic() + 60
    while any(catalog.canaries.is_off(*place) for place in places):
        assert time.monotonic() < until
        time.sleep(0.01)
