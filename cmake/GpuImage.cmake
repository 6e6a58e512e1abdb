# Compiles a .cu file into one image for several GPUs, and writes down what ptxas says of its
# kernels. Run by cmake -P with NVCC, SOURCE, INCLUDE, COMPILER, IMAGE and RESOURCES.
set(targets "")
foreach(number 80 90)
  list(APPEND targets -gencode arch=compute_${number},code=sm_${number})
endforeach()
list(APPEND targets -gencode arch=compute_100,code=[sm_100,compute_100])
list(TRANSFORM INCLUDE PREPEND -I)
execute_process(
  COMMAND ${NVCC} -std=c++20 -ccbin ${COMPILER} ${INCLUDE} --fmad=false -Werror all-warnings
          ${targets} -fatbin -Xfatbin -compress-all -Xptxas -v -o ${IMAGE} ${SOURCE}
  RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(failed)
  file(REMOVE ${IMAGE})
  message(FATAL_ERROR "${said}")
endif()
file(WRITE ${RESOURCES} "${said}")
