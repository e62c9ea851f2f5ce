"""Files of examples that others wrote.

formats    which format a file is in, and the conversation of a line
schema     what is wrong with a line, by the JSON Schemas in schemas/
importing  examples -> entries with typed facts
"""
