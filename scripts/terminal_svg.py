#!/usr/bin/env python3
"""Runs a program that fills the terminal and draws the last screen that it showed as SVG.

    python3 scripts/terminal_svg.py OUT.svg COLUMNS ROWS COMMAND...        (Unix; nothing but Python)

What `nin-wgpu train --tui` writes is understood: moving the cursor, clearing, colours, bold and dim.
"""

import fcntl
import html
import os
import pty
import re
import struct
import sys
import termios

CELL = (8.4, 17.0)  # width and height of a character in pixels
MARGIN = 14
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
BACKGROUND, PLAIN = "#16181d", "#d5d9e0"
COLOURS = {
    30: "#3b4048", 31: "#ef6b73", 32: "#8ccf7e", 33: "#e5c76b", 34: "#4f8fd9", 35: "#c47fd5", 36: "#6cb6c2", 37: PLAIN,
    90: "#6b7280", 91: "#ff8b92", 92: "#a6e29a", 93: "#f2d98b", 94: "#7cb7ff", 95: "#d9a3e6", 96: "#93d3dd", 97: "#ffffff",
}  # fmt: skip
BRIGHT = {8: 90, 9: 91, 10: 92, 11: 93, 12: 94, 13: 95, 14: 96, 15: 97}
ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """Characters with their styles: (colour, background, bold, dim)."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.style = (None, None, False, False)
        self.x = self.y = 0
        self.clear()

    def clear(self) -> None:
        self.cells = [[(" ", self.style)] * self.columns for _ in range(self.rows)]

    def feed(self, text: str) -> str:
        """Takes what the program wrote; returns what is too little to be understood yet."""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = ESCAPE.match(text, at)
                if match is None:
                    if len(text) - at < 32:
                        return text[at:]
                    at += 1
                    continue
                self.control(match[1], match[2])
                at = match.end()
                continue
            if text[at] == "\r":
                self.x = 0
            elif text[at] == "\n":
                self.y = min(self.y + 1, self.rows - 1)
            elif self.x < self.columns:
                self.cells[self.y][self.x] = (text[at], self.style)
                self.x += 1
            at += 1
        return ""

    def control(self, arguments: str, kind: str) -> None:
        numbers = [int(number or 0) for number in arguments.lstrip("?").split(";")]
        if kind == "H":
            self.y, self.x = max(numbers[0], 1) - 1, max(numbers[1] if len(numbers) > 1 else 1, 1) - 1
        elif kind == "J":
            self.clear()
        elif kind == "m":
            self.set_style(numbers)

    def set_style(self, numbers: list[int]) -> None:
        colour, background, bold, dim = self.style
        numbers = list(numbers)
        while numbers:
            number = numbers.pop(0)
            if number == 0:
                colour, background, bold, dim = None, None, False, False
            elif number == 1:
                bold = True
            elif number == 2:
                dim = True
            elif number == 22:
                bold = dim = False
            elif number in (38, 48) and numbers[:1] == [5]:
                index = numbers[1]
                value = COLOURS[BRIGHT.get(index, 30 + index)]
                numbers = numbers[2:]
                colour, background = (value, background) if number == 38 else (colour, value)
            elif number == 39:
                colour = None
            elif number == 49:
                background = None
            elif number in COLOURS:
                colour = COLOURS[number]
            elif number - 10 in COLOURS:
                background = COLOURS[number - 10]
        self.style = (colour, background, bold, dim)

    def svg(self) -> str:
        width = self.columns * CELL[0] + 2 * MARGIN
        height = self.rows * CELL[1] + 2 * MARGIN
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
            f'font-family="{FONT}" font-size="14" fill="{PLAIN}" xml:space="preserve">',
            f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        ]
        for y, row in enumerate(self.cells):
            for first, last, style in runs(row):
                text = "".join(character for character, _ in row[first:last])
                colour, background, bold, dim = style
                left, top = MARGIN + first * CELL[0], MARGIN + y * CELL[1]
                if background:
                    out.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{(last - first) * CELL[0]:.1f}" height="{CELL[1]}" fill="{background}"/>')
                if not text.strip():
                    continue
                left += (len(text) - len(text.lstrip())) * CELL[0]
                text = text.strip()
                look = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if bold else "") + (' opacity="0.6"' if dim else "")
                # The length keeps columns in line whatever font shows them.
                out.append(
                    f'<text x="{left:.1f}" y="{top + 13:.1f}" textLength="{len(text) * CELL[0]:.1f}" lengthAdjust="spacingAndGlyphs"'
                    f"{look}>{html.escape(text)}</text>"
                )
        return "\n".join([*out, "</svg>", ""])


def runs(row: list) -> list:
    """Neighbours of one style; a wide gap ends one, too, so that its text can be moved to its column."""
    found, first = [], 0
    for x in range(1, len(row) + 1):
        gap = x + 2 <= len(row) and row[x][0] == row[x + 1][0] == " " and row[x - 1][0] != " "
        if x == len(row) or row[x][1] != row[first][1] or gap:
            found.append((first, x, row[first][1]))
            first = x
    return found


def main() -> None:
    out, columns, rows, command = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen, rest = Screen(columns, rows), ""
    is_filled = is_left = False
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        text = rest + data.decode(errors="replace")
        if not is_filled and "\x1b[?1049h" in text:
            text, is_filled = text[text.index("\x1b[?1049h") :], True
        if not is_filled or is_left:
            rest = ""
            continue
        if "\x1b[?1049l" in text:
            text, is_left = text[: text.index("\x1b[?1049l")], True
        rest = screen.feed(text)
    _, status = os.waitpid(child, 0)
    if status != 0 or not is_left:
        sys.exit(f"{command[0]} failed, or did not fill the terminal")
    with open(out, "w", encoding="utf-8") as file:
        file.write(screen.svg())


main()
