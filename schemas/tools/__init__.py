"""What makes and reads the language-neutral half of the contract. Not in the wheel.

generate_schema   the JSON Schema and the vectors' hex, from the Python structs
json_form         messages as JSON
"""
