"""Write a folder in Moore-AnimateAnyone's layout with random weights, to try everything on without real ones.

python -m generators.refnet random-weights --out FOLDER                of the full size, 5.5 GB
python -m generators.refnet random-weights --out FOLDER --size tiny    for tests
"""

from generators.random_folder import write_random_folder

if __name__ == "__main__":
    print(write_random_folder("generators.refnet", __doc__))
