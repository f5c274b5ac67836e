            // Stores the units that an invocation has fetched; imported in the middle of a kernel.
#for i in 0..UNITS_EACH
#if PROBE - 3
            if is_left_${i} {
                stage_left(first + group_${i}, quad_${i}, staged_${i});
            } else if unit_${i} < ${UNITS}u {
                stage_right(first + group_${i}, quad_${i}, staged_${i});
            }
#else
            loaded = loaded + staged_${i};
#end
#end
