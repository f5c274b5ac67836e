            // On to the next channels, behind the last of them to the next kernel position; imported in the middle of a kernel.
            within += 1u;
            if within == rounds_each {
                within = 0u;
                kx += 1u;
                if kx == params.kernel_w {
                    kx = 0u;
                    ky += 1u;
                }
            }
