#include "every_call.h"

namespace lamella::comm::testing {

std::vector<NamedCall> every_call() {
  const auto bytes = [](std::vector<float>& x) { return std::as_writable_bytes(std::span(x)); };
  return {
      {"barrier", [](Communicator& c, std::vector<float>&) { c.barrier(); }},
      {"all_reduce",
       [](Communicator& c, std::vector<float>& x) { c.all_reduce({x.data(), x.size()}, Reduction::sum); }},
      {"all_gather",
       [=](Communicator& c, std::vector<float>& x) {
         std::vector<float> all(x.size() * static_cast<std::size_t>(c.size()));
         c.all_gather(bytes(x), bytes(all), std::vector(static_cast<std::size_t>(c.size()), x.size() * 4));
       }},
      {"reduce_scatter",
       [](Communicator& c, std::vector<float>& x) {
         const std::size_t each = x.size() / static_cast<std::size_t>(c.size());
         std::vector<float> mine(each);
         c.reduce_scatter({x.data(), each * static_cast<std::size_t>(c.size())}, {mine.data(), each}, Reduction::sum);
       }},
      {"all_to_all",
       [=](Communicator& c, std::vector<float>& x) {
         const std::size_t each = x.size() / static_cast<std::size_t>(c.size()) * 4;
         const std::vector<std::size_t> counts(static_cast<std::size_t>(c.size()), each);
         std::vector<float> to(each / 4 * static_cast<std::size_t>(c.size()));
         c.all_to_all(bytes(x).first(to.size() * 4), counts, bytes(to), counts);
       }},
      {"broadcast", [=](Communicator& c, std::vector<float>& x) { c.broadcast(bytes(x), 1); }},
      {"a message", [=](Communicator& c, std::vector<float>& x) { c.receive(bytes(x), c.rank() == 1 ? 0 : 1); }},
  };
}

}  // namespace lamella::comm::testing
