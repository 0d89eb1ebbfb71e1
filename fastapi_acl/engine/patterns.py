from collections import Counter

from casbin import util

F = {
    "keyMatch": util.key_match_func,
    "keyMatch2": util.key_match2_func,
    "keyMatch3": util.key_match3_func,
    "keyMatch4": util.key_match4_func,
    "keyMatch5": util.key_match5_func,
    "globMatch": util.glob_match_func,
}


class PatternGroups:
    def __init__(self, function):
        self.f = F[function]
        self.c = Counter()

    def add(self, p):
        self.c[p] += 1

    def discard(self, p):
        self.c[p] -= 1
        if not self.c[p]:
            del self.c[p]

    def matching(self, v):
        return [p for p in self.c if self.f(v, p)]


PATTERN_FUNCTIONS = frozenset(F)


def matcher_of(function, pattern):
    return lambda v: F[function](v, pattern)
