// Mean over all pixels of a channel, row by row: rounding errors grow with height + width. The including shader declares `x`,
// [images][height][width][channels], and `params` with `channels`, `height` and `width`.

fn channel_mean(image: u32, channel: u32) -> f32 {
    var at = image * params.height * params.width * params.channels + channel;
    var sum = 0.0;
    for (var row = 0u; row < params.height; row++) {
        var row_sum = 0.0;
        for (var column = 0u; column < params.width; column++) {
            row_sum += f32(x[at]);
            at += params.channels;
        }
        sum += row_sum;
    }
    return sum / f32(params.height * params.width);
}
