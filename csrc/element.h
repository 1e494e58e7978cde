// Element types that cross from torch to the kernels.
#pragma once

namespace autoreid_fast {

enum class Element { float32, float16, bfloat16, float64 };

}  // namespace autoreid_fast
