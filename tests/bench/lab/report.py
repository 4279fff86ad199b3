"""Measured values as Markdown tables: a row for each target, a column for each load."""

import statistics


class Sheet:
    """Values of one metric: several of one cell become their median."""

    def __init__(self, title, note, digits):
        self.title, self.note, self.digits = title, note, digits
        self.cells, self.columns, self.rows = {}, [], []

    def add(self, row, column, value):
        """`value` is a number, or the reason why there is none."""
        if column not in self.columns:
            self.columns.append(column)
        if row not in self.rows:
            self.rows.append(row)
        self.cells.setdefault((row, column), []).append(value)

    def text(self, order):
        """The table; rows stand in `order`."""
        reasons = []
        lines = [f"### {self.title}", "", self.note, "",
                 "| | " + " | ".join(self.columns) + " |", "|---|" + "---:|" * len(self.columns)]
        for row in sorted(self.rows, key=order.index):
            shown = [self._cell(self.cells.get((row, column), []), row, column, reasons) for column in self.columns]
            lines.append(f"| {row} | " + " | ".join(shown) + " |")
        return "\n".join([*lines, *([""] + reasons if reasons else []), ""])

    def _cell(self, values, row, column, reasons):
        numbers = [v for v in values if isinstance(v, (int, float))]
        if not numbers:
            reasons.extend(f"- {row}, {column}: {v}" for v in dict.fromkeys(values))
            return "–"
        middle = statistics.median(numbers)
        # With one value there is no spread to show.
        spread = f" ({min(numbers):,.{self.digits}f}–{max(numbers):,.{self.digits}f})" if len(numbers) > 1 else ""
        return f"{middle:,.{self.digits}f}{spread}"
