// Where the pixels of one map meet the other map, without a division in a loop. Imported by the kernels here, which walk over
// kernel positions outside and over channels inside: what depends on a position is found once for all its channels.
//
// INPUT 1: pixels are those of the input and look at the output (the input gradient, stride 1 only); 0: the other way.

const NONE: u32 = 0xffffffffu;

// A pixel: its image, and its row and column in the upper and lower half of a word.
struct Pixel {
    image: u32,
    place: u32,
}

#if INPUT
#define STRIDES 0
fn map_height() -> u32 { return params.in_h; }
fn map_width() -> u32 { return params.in_w; }
fn met_height() -> u32 { return params.out_h; }
fn met_width() -> u32 { return params.out_w; }
#else
#define STRIDES 1
fn map_height() -> u32 { return params.out_h; }
fn map_width() -> u32 { return params.out_w; }
fn met_height() -> u32 { return params.in_h; }
fn met_width() -> u32 { return params.in_w; }
#end

fn pixel_of(number: u32) -> Pixel {
    let line = number / map_width();
    let image = line / map_height();
    return Pixel(image, ((line - image * map_height()) << 16u) | (number - line * map_width()));
}

// The pixel `lines` lines and `columns` columns further, in reading order; fewer columns than a line has.
fn advanced(pixel: Pixel, lines: u32, columns: u32) -> Pixel {
    var image = pixel.image;
    var row = (pixel.place >> 16u) + lines;
    var column = (pixel.place & 0xffffu) + columns;
    if column >= map_width() {
        column -= map_width();
        row += 1u;
    }
    while row >= map_height() {
        row -= map_height();
        image += 1u;
    }
    return Pixel(image, (row << 16u) | column);
}

// The number of the place in the other map that a pixel meets at kernel position (ky, kx); NONE outside of it, and where the
// pixel is behind the last image.
fn met(pixel: Pixel, ky: u32, kx: u32) -> u32 {
#if STRIDES
    let row = (pixel.place >> 16u) * params.stride_h + ky - params.pad_h;
    let column = (pixel.place & 0xffffu) * params.stride_w + kx - params.pad_w;
#else
    let row = (pixel.place >> 16u) + params.pad_h - ky;
    let column = (pixel.place & 0xffffu) + params.pad_w - kx;
#end
    // A negative number is a large one.
    let inside = pixel.image < params.batch && row < met_height() && column < met_width();
    return select(NONE, (pixel.image * met_height() + row) * met_width() + column, inside);
}

// A tile of a matrix: its first row, its first column, and which part of the reduction it sums.
struct Tile {
    row: u32,
    column: u32,
    split: u32,
}

// Tile number `index` of `rows` by `columns` results: rows vary fastest, splits slowest.
fn tile_of(index: u32, rows: u32, columns: u32) -> Tile {
    let row_tiles = (rows + ${ROWS - 1}u) / ${ROWS}u;
    let tiles = row_tiles * ((columns + ${COLUMNS - 1}u) / ${COLUMNS}u);
    let within = index % tiles;
    return Tile(within % row_tiles * ${ROWS}u, within / row_tiles * ${COLUMNS}u, index / tiles);
}

// The pixel behind this one in reading order.
fn following(pixel: Pixel) -> Pixel {
    let column = (pixel.place & 0xffffu) + 1u;
    if column < map_width() {
        return Pixel(pixel.image, pixel.place + 1u);
    }
    let row = (pixel.place >> 16u) + 1u;
    if row < map_height() {
        return Pixel(pixel.image, row << 16u);
    }
    return Pixel(pixel.image + 1u, 0u);
}

// What four pixels in reading order meet, of which `first` is the first.
fn four_met(first: Pixel, ky: u32, kx: u32) -> vec4<u32> {
    var pixel = first;
    var places: vec4<u32>;
#for p in 0..4
    places[${p}] = met(pixel, ky, kx);
    pixel = following(pixel);
#end
    return places;
}
