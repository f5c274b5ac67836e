#!/usr/bin/env bash
# Makes the pictures of README.md from real runs: docs/images/terminal.svg and docs/images/report.png, in about three minutes.
#
#   scripts/make_pictures.sh          (needs target/release/nin-wgpu, Chromium, and Python 3 with Pillow)
#
# CHROMIUM and PYTHON (environment) name the programs where they are called otherwise.
# Exit codes: 0 both are written; 1 something is missing or failed.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$(realpath "${CARGO_TARGET_DIR:-target}/release/nin-wgpu")
project=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$project/assets" "$work/assets"

# From a folder of its own: the picture shows where files go.
(
  cd "$work"
  "${PYTHON:-python3}" "$project/scripts/terminal_svg.py" "$project/docs/images/terminal.svg" 110 24 \
    "$program" train --model nin-small --data assets/fashion-mnist-mini --limit-train 1000 --limit-test 300 --epochs 8 \
    --log-every 3 --tui --no-report
)

"$program" train --model nin-small --data assets/fashion-mnist-mini --epochs 15 --out "$work/report"
"${CHROMIUM:-chromium}" --headless --disable-gpu --hide-scrollbars --window-size=1000,2110 \
  --screenshot="$work/report.png" "file://$work/report/report.html"
"${PYTHON:-python3}" - "$work/report.png" docs/images/report.png <<'SHRINK'
import sys

from PIL import Image

page = Image.open(sys.argv[1]).convert("RGB")
page = page.resize((760, page.height * 760 // page.width), Image.LANCZOS)
page.quantize(40, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
SHRINK
ls -l docs/images
