// The C library's numbers as in the "C" locale, whatever the program has set.
#ifndef BITHEADS_HOST_CLASSIC_LOCALE_H
#define BITHEADS_HOST_CLASSIC_LOCALE_H

#include <clocale>

namespace bitheads {

// Holds for the calling thread, as long as the object lives.
class ClassicLocale {
 public:
  ClassicLocale() : before_(uselocale(classic())) {}
  ~ClassicLocale() { uselocale(before_); }
  ClassicLocale(const ClassicLocale &) = delete;
  ClassicLocale &operator=(const ClassicLocale &) = delete;

 private:
  static locale_t classic() {
    static const locale_t locale = newlocale(LC_ALL_MASK, "C", static_cast<locale_t>(nullptr));
    return locale;
  }

  locale_t before_;
};

}  // namespace bitheads

#endif
