"""Facts and figures.

fact             a value, its type, and its printed form
formula          the grammar of formulas and conditions
figure           a figure as it is written
figures          the one reader of figures as they are written in a text
figure_reader    reads one of them, from its first digit both ways
figure_patterns  what begins a figure, and what may stand beside one
written_forms    its inverse: the written forms that state a fact
figure_matching  when a figure of a text states a fact of a record
numerals         numbers in digits, and the conventions by which they are written
number_words     numbers in words
units            scales and units
currencies       signs, codes and names of currencies
dates            dates and periods
labels           names that are compared, and the periods in them: revenue 2024, revenue 2023
cldr             the tables of CLDR, under the Unicode licence: currencies, locales, months
"""
