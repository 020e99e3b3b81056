"""A tune with a given body and header."""


def tune(body: str, key: str = "C", metre: str = "4/4", unit: str = "1/8") -> str:
    return f"X:1\nM:{metre}\nL:{unit}\nK:{key}\n{body}"
