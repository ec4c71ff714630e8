// The packed tile of kvprof/tile.cuh is a bijection: every bit of the codes belongs to exactly one code, every pair of
// parameter bytes to exactly one scale or minimum, for every combination of formats. Builds with a host compiler:
//
//     c++ -std=c++17 -Wall -Wextra -Werror -I kernels/include kernels/tests/tile_layout.cc -o tile_layout && ./tile_layout
#include <cstdio>
#include <vector>

#include "kvprof/tile.cuh"

using namespace kvprof;

namespace {

std::vector<Format> formats(int tokens, int channels) {
  std::vector<Format> all{kFp8};
  for (int bits : {2, 4, 8})
    for (int group : {16, 32, 64, 128}) {
      if (group <= tokens) all.push_back({bits, group, Direction::channel});
      if (group <= channels) all.push_back({bits, group, Direction::token});
    }
  return all;
}

// Whether the places of all codes and pairs are disjoint and stay inside their part; together with the count that
// makes them a bijection, but for fp8's 14 bytes of padding.
bool is_bijective(const TileLayout& tile) {
  std::vector<int> owner(tile.bytes() * 8, 0);  // by bit: how many codes or parameters claim it
  bool inside = tile.bytes() % 16 == 0;
  const auto claim = [&](int first_bit, int bits, int from, int to) {
    inside = inside && first_bit >= from * 8 && first_bit + bits <= to * 8;
    if (inside)
      for (int b = 0; b < bits; ++b) ++owner[first_bit + b];
  };
  for (Side side : {Side::key, Side::value}) {
    const Format format = tile.format(side);
    const int codes = tile.codes_at(side), parameters = tile.parameters_at(side);
    for (int token = 0; token < tile.tokens; ++token)
      for (int channel = 0; channel < tile.channels; ++channel) {
        const CodePlace place = tile.code(side, token, channel);
        inside = inside && place.shift + format.bits <= 8;
        claim(place.byte * 8 + place.shift, format.bits, codes, codes + tile.code_bytes(side));

        const bool first = format.direction == Direction::tile ? token == 0 && channel == 0
                                                               : (format.direction == Direction::channel ? token : channel) % format.group == 0;
        const PairPlace pair = tile.pair(side, token, channel);
        if (!first) {  // an element of a group has the pair of the group's first element
          const int g = format.group;
          const int head_token = format.direction == Direction::channel ? token / g * g : (format.direction == Direction::tile ? 0 : token);
          const int head_channel = format.direction == Direction::token ? channel / g * g : (format.direction == Direction::tile ? 0 : channel);
          const PairPlace head = tile.pair(side, head_token, head_channel);
          inside = inside && head.scale == pair.scale && head.minimum == pair.minimum;
          continue;
        }
        claim(pair.scale * 8, 16, parameters, parameters + tile.scale_bytes(side));
        if (pair.minimum >= 0)
          claim(pair.minimum * 8, 16, parameters + tile.scale_bytes(side), parameters + tile.parameter_bytes(side));
        else
          for (int b = 16; b < 128; ++b) ++owner[parameters * 8 + b];
      }
  }
  for (int count : owner) inside = inside && count == 1;
  return inside;
}

}  // namespace

int main() {
  int checked = 0;
  for (int tokens : {64, 128})
    for (int channels : {64, 128})
      for (const Format& key : formats(tokens, channels))
        for (const Format& value : formats(tokens, channels)) {
          const TileLayout tile{tokens, channels, key, value};
          if (!is_bijective(tile)) {
            std::printf("not a bijection: %d tokens, %d channels, K %d bits group %d direction %d, V %d bits group %d direction %d\n",
                        tokens, channels, key.bits, key.group, int(key.direction), value.bits, value.group, int(value.direction));
            return 1;
          }
          ++checked;
        }
  std::printf("%d layouts are bijections\n", checked);
}
